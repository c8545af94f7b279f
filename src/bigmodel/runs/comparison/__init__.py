"""What runs left under `outputs/`: read, grouped, compared and shown. No torch, no Hydra."""
