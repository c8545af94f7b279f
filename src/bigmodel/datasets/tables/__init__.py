"""Datasets of table rows and of series."""
