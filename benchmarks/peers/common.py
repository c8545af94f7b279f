"""What every contestant shares: the data as its users hold it, the model, and how the rate is taken.

Each contestant is a program of its own: `python benchmarks/peers/NAME.py --case small --steps 60 ...` trains for so
many steps and prints one JSON line with its samples/s between step `SKIPPED` and the last. Start-up does not count.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SKIPPED = 5  # steps at the start, in which workers, caches and allocators fill


@dataclass(frozen=True)
class Case:
    """A piece of work."""

    model: str
    shape: tuple[int, int, int]
    batch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


CASES = {
    "small": Case("small CNN", (1, 28, 28), 256, (0.2860,), (0.3530,)),
    "resnet18": Case("ResNet-18", (3, 32, 32), 128, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


@dataclass(frozen=True)
class Options:
    """What a turn is given."""

    case: Case
    name: str
    steps: int
    threads: int
    precision: str
    channels_last: bool
    data: Path


def options() -> Options:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=sorted(CASES), required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--data", type=Path, required=True, help="an .npz with pixels (N, H, W, C) and labels")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    case = CASES[given.case]
    return Options(case, given.case, given.steps, given.threads, given.precision, given.channels_last, given.data)


def model(given: Options) -> nn.Module:
    """The network, the same for all."""
    from bigmodel.models.cnn import CNN
    from bigmodel.models.resnet import ResNet

    if given.name == "small":
        net: nn.Module = CNN(given.case.shape, 10, channels=8, hidden=32)
    else:
        net = ResNet(given.case.shape, 10)
    return net.to(memory_format=torch.channels_last) if given.channels_last else net  # type: ignore[call-overload]


class Pictures(torch.utils.data.Dataset[Any]):
    """As in every tutorial: a picture at a time, through torchvision's transforms."""

    def __init__(self, given: Options) -> None:
        from torchvision import transforms

        with np.load(given.data) as file:
            self.pixels, self.labels = file["pixels"], file["labels"]
        size = given.case.shape[1]
        steps = [transforms.ToPILImage(), transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()]
        self._transform = transforms.Compose(
            [*steps, transforms.ToTensor(), transforms.Normalize(given.case.mean, given.case.std)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self.pixels[index]), int(self.labels[index])


class Rate:
    """Samples/s from the end of step `SKIPPED` on."""

    def __init__(self, given: Options) -> None:
        self._given, self._steps, self._began, self._ended = given, 0, 0.0, 0.0

    def step(self) -> None:
        """One more step is done."""
        self._steps += 1
        self._ended = perf_counter()  # what a trainer does when it is through is not a step
        if self._steps == SKIPPED:
            self._began = self._ended

    def tell(self) -> None:
        """Print what the driver reads."""
        seconds = self._ended - self._began
        print(json.dumps({"samples_per_s": (self._steps - SKIPPED) * self._given.case.batch / seconds}))
