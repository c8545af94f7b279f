"""Run directories: create, write, lock, checkpoint and read them."""
