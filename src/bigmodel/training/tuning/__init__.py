"""Values found by trial, cost estimates, and profiles."""
