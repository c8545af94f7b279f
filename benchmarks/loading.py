"""Images per second of the resident pipeline against torchvision's transforms in a DataLoader with two workers.

python benchmarks/loading.py [--turns 5] [--batches 97] [--threads 1]

Both give float32 batches of 512 from the same CIFAR-10-shaped uint8 images: crop from 4 pixels of padding, flip,
normalise. They take turns in one process; worker start-up is not counted. The resident pipeline gets one thread,
against the two workers: on a machine that others use, threads that wait for each other measure the others. It goes on
to be measured in channels-last and with every augmentation on. Exit code 1 if it is less than ten times as fast.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from time import perf_counter

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.loader import ImageLoader
from bigmodel.datasets.images.source import InMemoryImages
from bigmodel.interfaces import LoaderOptions
from bigmodel.runtime.device import Device

BATCH = 512
IMAGES = 50_000
WORKERS = 2
BAR = 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP_AND_FLIP = ImageAugment(flip=True, crop=4)
EVERYTHING = ImageAugment("alternating", 4, "reflect", colour=0.5, cutout=8, mixup=0.2, cutmix=1.0)


class Photos(Dataset[tuple[Tensor, int]]):
    """As torchvision's own CIFAR10 serves them: one picture at a time, through PIL."""

    def __init__(self, pixels_NCHW: Tensor, labels_N: Tensor) -> None:
        self.pixels_NHWC, self.labels = pixels_NCHW.permute(0, 2, 3, 1).numpy(), labels_N.tolist()
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.change = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.change(Image.fromarray(self.pixels_NHWC[number])), self.labels[number]


def resident(arrays: InMemoryImages, augment: ImageAugment, *, channels_last: bool = False) -> ImageLoader:
    dataset = ImageDataset(
        classes=[str(number) for number in range(10)],
        input_shape=(3, 32, 32),
        mean=MEAN,
        std=STD,
        val_fraction=0.0,
        augment=augment,
        sources={"train": lambda: arrays},
        sizes={"train": IMAGES},
        fingerprint="",
    )
    loader = ImageLoader(dataset, LoaderOptions(torch.device("cpu"), BATCH, seed=0))
    loader.memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return loader


def rate(start: Callable[[], Iterator[object]], batches: int) -> float:
    """Images per second, from the second batch on: by then workers run and memory is there."""
    taken = start()
    next(taken)
    began = perf_counter()
    for _ in range(batches - 1):
        next(taken)
    return (batches - 1) * BATCH / (perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batches", type=int, default=97, help="of 512 images, a turn; an epoch has 97 whole ones")
    parser.add_argument("--threads", type=int, default=1, help="of the resident pipeline")
    arguments = parser.parse_args()
    Device("cpu", threads=arguments.threads).configure_torch()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (IMAGES,), generator=generator)
    arrays, photos = InMemoryImages(pixels, labels), Photos(pixels, labels)
    usual = f"DataLoader, {WORKERS} workers"
    ours = {
        "resident": resident(arrays, CROP_AND_FLIP),
        "resident, channels-last": resident(arrays, CROP_AND_FLIP, channels_last=True),
        "resident, everything on": resident(arrays, EVERYTHING),
    }
    loaders: dict[str, Callable[[], Iterator[object]]] = {
        usual: lambda: iter(DataLoader(photos, BATCH, shuffle=True, num_workers=WORKERS)),
        **{name: lambda data=data: data.train_batches(0, arguments.batches) for name, data in ours.items()},
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(arguments.turns):
        for name, start in loaders.items():
            rates[name].append(rate(start, arguments.batches))
    print(f"{BATCH} images of 3x32x32 a batch, {arguments.threads} thread(s), median of {arguments.turns} turns")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[usual], strict=True))
        print(f"  {name:<24} {statistics.median(values):>10,.0f} images/s  {ratio:6.1f} times the DataLoader")
    ratio = statistics.median(a / b for a, b in zip(rates["resident"], rates[usual], strict=True))
    print(f"  bar: {BAR} times")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
