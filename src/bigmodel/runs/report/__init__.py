"""One HTML page about a run, several runs or a sweep: no script, no network, all text escaped."""
