"""On a GPU: seconds to 94 % on CIFAR-10, and the share of the card's peak that ResNet-18 reaches.

python benchmarks/gpu.py [--runs 20] [--record airbench94_muon.py]

Each run is `experiment=cifar10_94` with another seed, in this process, so that starting up and compiling count once and
are told apart. `--record` is a public record's own script, run on the same card for comparison. Exit code 1 if the mean
accuracy is below 94 %; without a GPU nothing is measured and the exit code is 2.
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

import torch

from bigmodel.compose import Source, compose
from bigmodel.conf_directory import conf_directory
from bigmodel.device import Device
from bigmodel.interfaces import Batch
from bigmodel.job import Job
from bigmodel.losses import CrossEntropy
from bigmodel.models.resnet import ResNet
from bigmodel.optim.sgd import sgd
from bigmodel.peak import measured_peak
from bigmodel.schedules import Constant
from bigmodel.tasks.classification import Classification

ACCURACY = 0.94


def one_run(seed: int, folder: Path, more: list[str]) -> tuple[float, float, float]:
    """Test accuracy, seconds of training by the log, and seconds of the whole command."""
    from bigmodel.commands.train import run
    from bigmodel.signals import Stop

    source = Source((conf_directory(),), "train")
    words = ["experiment=cifar10_94", "device=cuda", f"seed={seed}", f"output_dir={folder}", "listeners=[]", *more]
    began = perf_counter()
    directory = run(compose("train", words, source), Stop())
    taken = perf_counter() - began
    assert directory is not None
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    training = sum(line["data_s"] + line["step_s"] for line in lines if line["split"] == "train")
    return json.loads((directory / "summary.json").read_text())["test"]["accuracy"], training, taken


def resnet18(precision: str) -> None:
    """Updates of ResNet-18, batch 1,024, against the measured peak."""
    device = Device("cuda", precision=precision, channels_last=True)
    device.prepare()
    model = ResNet((3, 32, 32), 10).cuda().to(memory_format=torch.channels_last)
    task = Classification(CrossEntropy(), 10)
    job = Job(model=model, task=task, optimizers=[sgd(model)], schedule=Constant(), device=device, seed=0, steps=10**6)
    images = torch.randn(1024, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    batch = Batch(images, torch.randint(10, (1024,), device="cuda"))
    for _ in range(10):
        job.update(batch)
    torch.cuda.synchronize()
    began = perf_counter()
    for _ in range(50):
        job.update(batch)
    torch.cuda.synchronize()
    rate = 50 * 1024 / (perf_counter() - began)
    peak, flops = measured_peak(device), 3 * 2 * 0.5558e9  # forward and backward of an image
    share = rate * flops / peak.flops_per_s
    print(f"ResNet-18 {precision}: {rate:,.0f} images/s, {share:.0%} of the peak ({peak.operation})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--record", type=Path, help="the record's script; run as it is, its output shown")
    parser.add_argument("more", nargs="*", help="further words for bigmodel-train")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that torch can use here: nothing was measured", file=sys.stderr)
        return 2
    os.environ.setdefault("BIGMODEL_DATA_DIR", "data")
    with tempfile.TemporaryDirectory() as name:
        first = one_run(10**6, Path(name), arguments.more)
        found = [one_run(seed, Path(name), arguments.more) for seed in range(arguments.runs)]
    accuracies, training, whole = zip(*found, strict=True)
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(torch.cuda.get_device_name(), torch.__version__)
    print(f"accuracy {statistics.mean(accuracies):.4f}, deviation {spread:.4f}, {len(found)} runs")
    print(f"seconds of training {statistics.mean(training):.3f}, of the command with data and test ", end="")
    print(f"{statistics.mean(whole):.3f}; the first run, with all that happens once, {first[2]:.1f}")
    for precision in ("fp32", "tf32", "bf16"):
        resnet18(precision)
    if arguments.record:
        subprocess.run([sys.executable, arguments.record], check=True)
    return 0 if statistics.mean(accuracies) >= ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
