"""Group, compare and show the runs under `outputs/`. Imports neither torch nor Hydra."""
