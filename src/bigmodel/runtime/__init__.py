"""The machine: devices, precision, signals, time."""
