"""The loop, its state, and how a run is built from a config."""
