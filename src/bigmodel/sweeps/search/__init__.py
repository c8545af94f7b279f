"""`hydra/sweeper=optuna`: a sweep whose trials are chosen one by one from the results of earlier ones."""
