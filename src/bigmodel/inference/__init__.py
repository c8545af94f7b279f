"""Predict with trained runs."""
