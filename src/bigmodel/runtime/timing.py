"""Clock that waits for the device: on a GPU a call returns long before its work is done."""

from __future__ import annotations

from time import perf_counter

import torch


def synchronized_time(device: torch.device) -> float:
    """Return seconds after synchronizing with the device: for measuring, not for training."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return perf_counter()
