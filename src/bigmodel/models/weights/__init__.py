"""Weights from elsewhere and adapters."""
