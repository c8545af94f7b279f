"""Run directories: writing, checkpoints, reading."""
