"""State of a sweep on disk: its jobs, how they are run, and how far they have got."""
