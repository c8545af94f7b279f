"""Devices, precision, signals and timing."""
