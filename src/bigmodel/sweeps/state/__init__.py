"""What a sweep is on disk: its jobs, how they are run, and what became of them."""
