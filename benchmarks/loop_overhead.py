"""Samples per second of this package's loop against the shortest hand-written PyTorch loop on the same resident data.

python benchmarks/loop_overhead.py [--repeats 5] [--only fashion_mnist]

Both run in this process, in turns, on the same uint8 tensors with the same model, loss and fused optimizer. Exit code 1
if the median ratio is below 0.97. Real data comes from BIGMODEL_DATA_DIR; without it random pixels take its place.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import sys
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.loader import ImageLoader
from bigmodel.datasets.images.source import InMemoryImages
from bigmodel.events import Saved
from bigmodel.interfaces import LoaderOptions
from bigmodel.models.cnn import CNN
from bigmodel.models.resnet import ResNet
from bigmodel.optim.schedules import Constant
from bigmodel.optim.sgd import sgd
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training.loop import LoopOptions, train
from bigmodel.training.state import TrainState

BATCH = 128
BAR = 0.97
NEVER = 10**9


class NoCheckpoints:
    def save(self, state: TrainState, passing: bool = False) -> None:
        """Save nothing."""

    def completed(self, wait: bool = False) -> list[Saved]:
        return []


def cifar10(folder: Path) -> tuple[Tensor, Tensor]:
    files = [folder / "cifar-10-batches-bin" / f"data_batch_{number}.bin" for number in range(1, 6)]
    records = torch.from_numpy(np.concatenate([np.fromfile(file, np.uint8) for file in files]).reshape(-1, 3073))
    return records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].long()


def fashion_mnist(folder: Path) -> tuple[Tensor, Tensor]:
    def content(name: str) -> bytes:
        plain = folder / "fashion_mnist" / name
        return plain.read_bytes() if plain.exists() else gzip.decompress(plain.with_name(f"{name}.gz").read_bytes())

    pixels = np.frombuffer(content("train-images-idx3-ubyte"), np.uint8, offset=16).copy()
    labels = np.frombuffer(content("train-labels-idx1-ubyte"), np.uint8, offset=8).copy()
    return torch.from_numpy(pixels).view(-1, 1, 28, 28), torch.from_numpy(labels).long()


def random_like(count: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    return torch.randint(256, (count, *shape), dtype=torch.uint8), torch.randint(10, (count,))


def dataset_of(pixels: Tensor, labels: Tensor) -> ImageDataset:
    channels = pixels.shape[1]
    arrays = InMemoryImages(pixels, labels)
    return ImageDataset(
        classes=[str(number) for number in range(10)],
        input_shape=tuple(pixels.shape[1:]),
        mean=[0.5] * channels,
        std=[0.25] * channels,
        val_fraction=0.0,
        augment=ImageAugment(),
        sources={"train": lambda: arrays},
        sizes={"train": len(labels)},
        fingerprint="",
    )


def random_data(shape: tuple[int, int, int], count: int, batch_size: int, device: Device) -> ImageLoader:
    return ImageLoader(dataset_of(*random_like(count, shape)), LoaderOptions(device.torch_device, batch_size, seed=0))


def job_of(model: nn.Module, steps: int, device: Device) -> TrainState:
    """A plain run: cross-entropy over ten classes, SGD at a rate at which random labels do no harm."""
    return TrainState(
        model=model,
        task=Classification(CrossEntropy(), 10),
        optimizers=[sgd(model, lr=1e-4)],
        schedule=Constant(),
        device=device,
        seed=0,
        steps=steps,
    )


def ours(model: nn.Module, pixels: Tensor, labels: Tensor, steps: int) -> tuple[float, float]:
    device = Device("cpu")
    data = ImageLoader(dataset_of(pixels, labels), LoaderOptions(device.torch_device, BATCH, seed=0))
    job = job_of(model, steps, device)
    plan = LoopOptions(log_every=50, evaluate_every=NEVER, save_every=NEVER, monitor=None)
    began, began_cpu = perf_counter(), process_time()
    train(job, data, plan, device, NoCheckpoints(), lambda event: None, lambda: False)
    return perf_counter() - began, process_time() - began_cpu


def shortest(model: nn.Module, pixels: Tensor, labels: Tensor, steps: int) -> tuple[float, float]:
    optimizer = sgd(model, lr=1e-4)
    model.train()
    began, began_cpu = perf_counter(), process_time()
    order = torch.randperm(len(labels))
    for step in range(steps):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        inputs = (pixels[chosen].float() / 255 - 0.5) / 0.25
        loss = F.cross_entropy(model(inputs), labels[chosen])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return perf_counter() - began, process_time() - began_cpu


SMALL_CNN = partial(CNN, channels=8, hidden=32, input_shape=(1, 28, 28), num_classes=10)
RESNET18 = partial(ResNet, blocks=(2, 2, 2, 2), width=64, input_shape=(3, 32, 32), num_classes=10)
CASES = {  # data, its size and shape, model, steps a turn, turns
    "fashion_mnist": (fashion_mnist, 60_000, (1, 28, 28), "small CNN", SMALL_CNN, 50, 41),
    "cifar10": (cifar10, 50_000, (3, 32, 32), "ResNet-18", RESNET18, 2, 9),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, help="turns of each loop; default: enough for a steady median")
    parser.add_argument("--only", choices=sorted(CASES))
    arguments = parser.parse_args()
    Device("cpu").configure_torch()
    passed = True
    for name, (read, count, shape, title, build, steps, turns) in CASES.items():
        if arguments.only not in (None, name):
            continue
        try:
            pixels, labels = read(Path(os.environ.get("BIGMODEL_DATA_DIR", "data")))
            origin = name
        except OSError:
            pixels, labels = random_like(count, shape)
            origin = f"random pixels in the shape of {name} (set BIGMODEL_DATA_DIR for the real ones)"
        print(f"{title} on {origin}, batch {BATCH}, {torch.get_num_threads()} threads")
        torch.manual_seed(0)
        model = build()
        for loop in (shortest, ours):  # memory allocators and caches fill once, outside the measurement
            loop(model, pixels, labels, max(1, steps // 4))
        taken: dict[object, list[tuple[float, float]]] = {ours: [], shortest: []}
        for turn in range(arguments.repeats or turns):
            for loop in (ours, shortest) if turn % 2 else (shortest, ours):
                taken[loop].append(loop(model, pixels, labels, steps))
        wall, cpu = (
            statistics.median(b[clock] / a[clock] for a, b in zip(taken[ours], taken[shortest], strict=True))
            for clock in (0, 1)
        )
        a, b = (steps * BATCH / statistics.median(wall for wall, _ in taken[loop]) for loop in (ours, shortest))
        passed &= wall >= BAR
        print(f"  this loop {a:.1f} samples/s, shortest loop {b:.1f} samples/s")
        print(f"  median ratio {wall:.3f} (bar {BAR}); by processor time, where others share the machine, {cpu:.3f}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
