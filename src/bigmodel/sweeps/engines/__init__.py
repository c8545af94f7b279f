"""Where jobs run: processes here, Slurm, Ray."""
