"""From YAML and a command line to one checked, read-only config."""
