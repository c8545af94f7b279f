"""Time to the accuracy of the article's script, by that script and by `bigmodel-train experiment=cifar10_quick`.

python benchmarks/article.py [--steps 60] [--full]

The script is the article's: its network, batches of four through a DataLoader with torchvision's transforms, SGD with
0.001 and 0.9, two epochs. Its rate is measured over some steps, before and after the tool's run, and its two epochs
follow from that; with `--full` they are run, which takes hours, and its test accuracy is printed. The tool's time is
that of the whole command, start-up and test included. Exit code 1 below 150 times, or where a full run was more
accurate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from loop_overhead import cifar10
from numpy.typing import NDArray
from torch import Tensor
from torchvision import transforms

BAR, BATCH, EPOCHS = 150, 4, 2
SKIPPED = 5  # steps, in which the workers start


class ArticleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 32 * 32, 1000)
        self.fc2 = nn.Linear(1000, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.fc1(x.view(len(x), -1)))
        return self.fc2(x)


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A sample at a time, as the article's torchvision data set hands them out."""

    def __init__(self, pixels_NHWC: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self._pixels, self._labels = pixels_NHWC, labels
        half = (0.5, 0.5, 0.5)
        self._transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._pixels[index]), int(self._labels[index])


def script(data: Pictures, steps: int) -> tuple[float, nn.Module]:
    """Seconds a step of the article's loop, and its network then."""
    torch.manual_seed(0)
    net, criterion = ArticleNet(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=2)
    done, running, began = 0, 0.0, perf_counter()
    while done < steps:
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
            done += 1
            if done == SKIPPED:
                began = perf_counter()
            if done == steps:
                break
    return (perf_counter() - began) / (steps - SKIPPED), net


def accuracy(net: nn.Module, folder: Path) -> float:
    records = np.fromfile(folder / "cifar-10-batches-bin" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    data = Pictures(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64))
    with torch.inference_mode():
        loader = torch.utils.data.DataLoader(data, batch_size=500)
        right = sum(int((net(inputs).argmax(1) == labels).sum()) for inputs, labels in loader)
    return right / len(data)


def tool(folder: Path) -> tuple[float, float]:
    """Seconds of the whole command, and its test accuracy."""
    with tempfile.TemporaryDirectory() as name:
        words = ["experiment=cifar10_quick", "device=cpu", f"data_dir={folder}", f"output_dir={name}"]
        began = perf_counter()
        subprocess.run([sys.executable, "-m", "bigmodel", "train", *words], check=True, stdout=subprocess.DEVNULL)
        taken = perf_counter() - began
        (summary,) = Path(name).glob("*/*/summary.json")
        return taken, float(json.loads(summary.read_text())["test"]["accuracy"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--full", action="store_true", help="run the script's two epochs to their end")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("BIGMODEL_DATA_DIR", "data")).resolve()
    try:
        pixels, labels = cifar10(folder)
    except OSError as error:
        sys.exit(f"needs the real data: set BIGMODEL_DATA_DIR ({error})")
    data = Pictures(pixels.permute(0, 2, 3, 1).numpy(), labels.numpy())
    whole = EPOCHS * len(data) // BATCH
    before, _ = script(data, arguments.steps)
    seconds, reached = tool(folder)
    after, net = script(data, whole if arguments.full else arguments.steps)
    each = after if arguments.full else statistics.mean((before, after))
    ratio = each * whole / seconds
    print(f"the script: {BATCH / each:.1f} images/s, two epochs {each * whole / 60:.0f} minutes", end="")
    theirs = accuracy(net, folder) if arguments.full else None
    print("" if theirs is None else f", test accuracy {theirs:.2%}")
    print(f"bigmodel-train experiment=cifar10_quick: {seconds:.0f} s in all, test accuracy {reached:.2%}")
    print(f"ratio {ratio:.0f} (bar {BAR})")
    return 0 if ratio >= BAR and (theirs is None or reached >= theirs) else 1


if __name__ == "__main__":
    sys.exit(main())
