"""Choose the torch device that a config asks for."""

from __future__ import annotations

import torch

from bigmodel.errors import ConfigError
from bigmodel.runtime.gpus import least_used


def select_device(kind: str, index: int | None, local_rank: int | None = None) -> torch.device:
    """Return the device; `auto` is a GPU where there is one, and without `index` the least used of several, or that of
    the rank.

    Raises:
        ConfigError: there is no such device here.
    """
    if kind == "cpu" and index is None:
        return torch.device("cpu")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        kind = "cuda" if cuda else "mps" if mps else "cpu"
    if kind == "cuda" and not cuda:
        raise ConfigError(f"device: there is no NVIDIA GPU that torch can use here, {_present(mps)}")
    if kind == "mps" and not mps:
        raise ConfigError(f"device: there is no Apple GPU that torch can use here, {_present(mps)}")
    if kind != "cuda":
        if index is not None:
            raise ConfigError(f"device.index: this run is on {kind}, which has no index; leave it null")
        return torch.device(kind)
    count = torch.cuda.device_count()
    if index is not None and index >= count:
        raise ConfigError(f"device.index: there is no GPU {index}; the GPUs here are 0 to {count - 1}")
    if local_rank is not None:
        if index is not None:
            raise ConfigError("device.index: several ranks take a GPU each; leave it null, or set CUDA_VISIBLE_DEVICES")
        return torch.device("cuda", local_rank % count)  # a scheduler may show each rank its own GPU only
    return torch.device("cuda", least_used(count) if index is None else index)


def _present(mps: bool) -> str:
    found = ["a CPU"] + (["an Apple GPU (device=mps)"] if mps else [])
    found += ["NVIDIA GPUs (device=cuda)"] if torch.cuda.is_available() else []
    return f"only {' and '.join(found)}; use device=auto or device=cpu"
