"""Metrics that need more than a mean."""
