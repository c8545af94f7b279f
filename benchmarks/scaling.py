"""How the cost grows with the work: images, image size, batch, threads, epochs. Everything on random pixels.

python benchmarks/scaling.py

Exit code 1 unless time per image is the same within 5 % for 1, 10 and 100 times as many images, and memory is the same
within 2 % after 2 and after 20 epochs. The other tables are for reading.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import perf_counter

import torch
from loop_overhead import NEVER, NoCheckpoints, job_of, random_data
from torch import nn

from bigmodel.datasets.images.loader import ImageLoader
from bigmodel.models.cnn import CNN
from bigmodel.models.resnet import CIFARResNet, ResNet
from bigmodel.runtime.device import Device
from bigmodel.training.loop import LoopOptions, train

LINEAR, FLAT = 0.05, 0.02
SMALL = (1, 28, 28)


def seconds(model: nn.Module, data: ImageLoader, steps: int, device: Device) -> float:
    """Of so many steps from the start, after as few as fill the caches."""
    plan = LoopOptions(log_every=NEVER, evaluate_every=NEVER, save_every=NEVER, monitor=None)
    taken = 0.0
    for count in (min(3, steps), steps):
        job = job_of(model, count, device)
        began = perf_counter()
        train(job, data, plan, device, NoCheckpoints(), lambda event: None, lambda: False)
        taken = perf_counter() - began
    return taken


def images(device: Device) -> bool:
    """Seconds an epoch and an image for 1, 10 and 100 times 2,000 images: as many steps of each, in turns."""
    sizes = (2_000, 20_000, 200_000)
    data = {size: random_data(SMALL, size, 128, device) for size in sizes}
    steps = data[sizes[-1]].steps_per_epoch
    jobs = {size: job_of(CNN(SMALL, 10, channels=8, hidden=32), steps, device) for size in sizes}
    batches = {size: data[size].train_batches(0, steps) for size in sizes}
    each = dict.fromkeys(sizes, 0.0)
    for _ in range(steps):
        for size in sizes:
            began = perf_counter()
            jobs[size].train_step(next(batches[size]))
            each[size] += (perf_counter() - began) / steps / 128
    least, most = min(each.values()), max(each.values())
    print("images     seconds an epoch   microseconds an image")
    for size, found in each.items():
        print(f"{size:7,} {size * found:16.3f} {1e6 * found:19.2f}")
    print(f"most / least an image {most / least:.3f} (bar {1 + LINEAR})\n")
    return most / least <= 1 + LINEAR


def image_size(device: Device) -> None:
    print("pixels a side   samples/s   nanoseconds a pixel (ResNet-8 of width 16, batch 16)")
    for side in (32, 64, 128, 224):
        shape, batch, steps = (3, side, side), 16, 4
        model = CIFARResNet(shape, 10, depth=8)  # whose stem is the same for every size
        taken = seconds(model, random_data(shape, batch * steps, batch, device), steps, device) / steps / batch
        print(f"{side:13} {1 / taken:11.1f} {1e9 * taken / side**2:14.1f}")
    print()


def batch_size(keep_memory: bool) -> None:
    device = Device("cpu", keep_memory=keep_memory)
    device.configure_torch()
    print(f"batch   samples/s (small CNN, 28x28, keep_memory={str(keep_memory).lower()})")
    for size in (32, 64, 128, 256, 512, 1024, 2048, 4096):
        count = max(4 * size, 8192)
        model = CNN(SMALL, 10, channels=8, hidden=32)
        data = random_data(SMALL, count, size, device)
        steps = data.steps_per_epoch
        print(f"{size:5} {count / seconds(model, data, steps, device):11.0f}")
    print()


def threads() -> None:
    print("threads   samples/s (ResNet-18 of width 32, 32x32, batch 64)")
    most = os.cpu_count() or 1
    for count in sorted({1, 2, most} & set(range(1, most + 1))):
        device = Device("cpu", threads=count)
        device.configure_torch()
        model = ResNet((3, 32, 32), 10, width=32)
        print(f"{count:7} {4 * 64 / seconds(model, random_data((3, 32, 32), 4 * 64, 64, device), 4, device):11.1f}")
    print()


def epochs(device: Device) -> bool:
    """Resident memory after 2 and after 20 epochs."""
    data = random_data((3, 32, 32), 2_000, 100, device)
    model, found = ResNet((3, 32, 32), 10, width=8), {}
    for count in (2, 18):
        seconds(model, data, count * data.steps_per_epoch, device)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found[count] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    early, late = found.values()
    print(f"resident after 2 epochs {early:.0f} MB, after 20 {late:.0f} MB: {late / early:.3f} (bar {1 + FLAT})")
    return late / early <= 1 + FLAT


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    device = Device("cpu")
    device.configure_torch()
    torch.manual_seed(0)
    passed = images(device)
    image_size(device)
    batch_size(keep_memory=False)
    passed &= epochs(device)
    threads()
    batch_size(keep_memory=True)  # last: what is kept stays
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
