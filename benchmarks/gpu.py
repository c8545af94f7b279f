"""On a GPU: seconds to 94 % on CIFAR-10, and ResNet-18 and a ViT beside hand-written loops and the card's peak.

python benchmarks/gpu.py [--runs 20] [--record airbench94_muon.py]

Each run is `experiment=cifar10_94` with another seed, in this process, so that starting up and compiling count once and
are told apart. `--record` is a public record's own script, run on the same card for comparison. Exit code 1 if the mean
accuracy is below 94 %; without a GPU nothing is measured and the exit code is 2. `--rehearse` takes the same way on a
CPU with networks and data too small to mean anything.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import nn

from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.interfaces import Batch
from bigmodel.models.resnet import ResNet
from bigmodel.models.vit import ViT
from bigmodel.optim.schedules import Constant
from bigmodel.optim.sgd import sgd
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training.state import TrainState
from bigmodel.training.tuning.cost import estimate_step_cost
from bigmodel.training.tuning.peak_flops import measure_peak_flops

ACCURACY = 0.94
FASTEST = ("device=cuda", "device.precision=bf16", "device.compile=graphs")
CUT = ("device=cpu", "limit_batches=2", "epochs=1", "batch_size=50", "model.widths=[8,8,8]", "model.views=one")


def one_run(seed: int, folder: Path, more: list[str]) -> tuple[float, float, float]:
    """Test accuracy, seconds of training by the log, and seconds of the whole command."""
    from bigmodel.commands.train import run
    from bigmodel.runtime.signals import StopRequest

    source = ConfigSource((conf_directory(),), "train")
    words = ["experiment=cifar10_94", f"seed={seed}", f"output_dir={folder}", "listeners=[]", *more]
    began = perf_counter()
    directory = run(compose("train", words, source), StopRequest())
    taken = perf_counter() - began
    assert directory is not None
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    training = sum(line["data_s"] + line["step_s"] for line in lines if line["split"] == "train")
    return json.loads((directory / "summary.json").read_text())["test"]["accuracy"], training, taken


def beside_by_hand(name: str, model: nn.Module, device: Device, size: int, steps: int) -> None:
    """Updates of a job and of the shortest loop, in turns on the same images, and both against the measured peak."""
    there = device.torch_device
    model = model.to(there, memory_format=torch.channels_last)
    task = Classification(CrossEntropy(), 10)
    images = torch.randn(size, 3, 32, 32, device=there).to(memory_format=torch.channels_last)
    batch = Batch(images, torch.randint(10, (size,), device=there))
    other = copy.deepcopy(model).train()
    job = TrainState(
        model=model, task=task, optimizers=[sgd(model)], schedule=Constant(), device=device, seed=0, steps=10**6
    )
    optimizer = torch.optim.SGD(other.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)

    def by_hand() -> None:
        with device.autocast():
            loss = F.cross_entropy(other(images), batch.targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def rate(update: Callable[[], None]) -> float:
        for _ in range(max(2, steps // 5)):
            update()
        _wait(there)
        began = perf_counter()
        for _ in range(steps):
            update()
        _wait(there)
        return steps * size / (perf_counter() - began)

    ours, theirs = zip(*((rate(lambda: job.train_step(batch)), rate(by_hand)) for _ in range(3)), strict=True)
    flops, peak = estimate_step_cost(model, task, batch, job.optimizers, 1).flops / size, measure_peak_flops(device)
    share = max(ours) * flops / peak.flops_per_s
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    print(f"{name} {device.precision}: {max(ours):,.0f} images/s, {ratio:.3f} times the loop by hand, ", end="")
    print(f"{share:.0%} of the peak ({peak.operation})")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--record", type=Path, help="the record's script; run as it is, its output shown")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, to see whether all of it goes through")
    parser.add_argument("more", nargs="*", help="further words for bigmodel-train")
    arguments = parser.parse_args()
    rehearsed = arguments.rehearse
    if not rehearsed and not torch.cuda.is_available():
        print("no GPU that torch can use here: nothing was measured", file=sys.stderr)
        return 2
    os.environ.setdefault("BIGMODEL_DATA_DIR", "data")
    more = [*(CUT if rehearsed else FASTEST), *arguments.more]
    with tempfile.TemporaryDirectory() as name:
        first = one_run(10**6, Path(name), more)
        found = [one_run(seed, Path(name), more) for seed in range(arguments.runs)]
    accuracies, training, whole = zip(*found, strict=True)
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print("a CPU, rehearsed" if rehearsed else torch.cuda.get_device_name(), torch.__version__)
    print(f"accuracy {statistics.mean(accuracies):.4f}, deviation {spread:.4f}, {len(found)} runs")
    print(f"seconds of training {statistics.mean(training):.3f}, of the command with data and test ", end="")
    print(f"{statistics.mean(whole):.3f}; the first run, with all that happens once, {first[2]:.1f}, ", end="")
    print(f"{first[1] - statistics.mean(training):.1f} of them compiling")
    size, steps = (8, 2) if rehearsed else (1024, 50)
    for precision in ("fp32",) if rehearsed else ("fp32", "tf32", "bf16"):
        device = Device("cpu" if rehearsed else "cuda", precision=precision, channels_last=True)
        device.configure_torch()
        beside_by_hand("ResNet-18", ResNet((3, 32, 32), 10), device, size, steps)
        beside_by_hand("ViT", ViT((3, 32, 32), 10), device, size, steps)
    if arguments.record:
        subprocess.run([sys.executable, arguments.record], check=True)
    return 0 if rehearsed or statistics.mean(accuracies) >= ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
