"""Values found by trying, cost estimates, profiles."""
