"""Measure the peak FLOP/s of this machine, to compare a run's FLOP/s with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.runtime.device import Device
from bigmodel.runtime.timing import synchronized_time

_TRIAL_S = 0.15  # for each of six operations
_MATRICES = {"cpu": (1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}  # rows and columns
_FILTERS = {"cpu": ((32, 64, 32), (32, 256, 8)), "cuda": ((256, 256, 32), (256, 512, 16))}  # samples, channels, side


@dataclass(frozen=True)
class PeakFlops:
    """The fastest operation found, and its speed."""

    flops_per_s: float
    operation: str


def measure_peak_flops(device: Device) -> PeakFlops:
    """Measure square matrix products and 3x3 convolutions in the device's precision, each in both memory layouts.

    A multiplication and an addition count as two. A convolution is counted by its definition: a library that saves
    multiplications, as Winograd's algorithm does, may exceed what the processor can multiply. Takes about a second.
    """
    there = device.torch_device
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)  # not torch's own: training draws from that

    def random_tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(there, dtype)

    trials: list[tuple[str, float, Callable[[], Tensor]]] = []
    for side in _MATRICES[there.type]:
        trials.append(
            (
                f"a {side}x{side} matrix product",
                2 * side**3,
                partial(torch.mm, random_tensor(side, side), random_tensor(side, side)),
            )
        )
    for samples, channels, side in _FILTERS.get(there.type, _FILTERS["cpu"]):
        images, filters = random_tensor(samples, channels, side, side), random_tensor(channels, channels, 3, 3)
        for layout in (torch.contiguous_format, torch.channels_last):
            call = partial(F.conv2d, images.to(memory_format=layout), filters.to(memory_format=layout), padding=1)
            name = f"a 3x3 convolution of {samples}x{channels}x{side}x{side}"
            trials.append((name, 2 * 9 * samples * channels**2 * side**2, call))
    with torch.inference_mode():
        rates = [PeakFlops(flops / _fastest(call, there), name) for name, flops, call in trials]
    return max(rates, key=lambda peak: peak.flops_per_s)


def _fastest(call: Callable[[], Tensor], device: torch.device) -> float:
    """Return the seconds of the fastest of many calls, after one to warm up."""
    call()
    began = synchronized_time(device)
    end, fastest = began + _TRIAL_S, float("inf")
    while began < end:
        call()
        done = synchronized_time(device)
        began, fastest = done, min(fastest, done - began)
    return fastest
