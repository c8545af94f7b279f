"""`hydra/sweeper=optuna`: a sweep whose jobs are asked for one by one, each with what the ones before it found."""
