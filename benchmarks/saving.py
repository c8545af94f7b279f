"""What saving costs: steps/s of ResNet-18 with a save every 50 steps against none at all, in turns in one session.

python benchmarks/saving.py [--batch 16] [--repeats 3]

A turn is 100 steps: a save after 50, while training goes on, and one at the end, which is waited for. Exit code 1 if
the median ratio is below 0.97. Small batches make it harder: the step is shorter and the save is the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from loop_overhead import NEVER, NoCheckpoints, job_of, random_data

from bigmodel.events import Saved
from bigmodel.models.resnet import ResNet
from bigmodel.runtime.device import Device
from bigmodel.training.loop import LoopOptions, train
from bigmodel.training.saver import AsyncCheckpointer

BAR = 0.97
STEPS, EVERY = 100, 50


def turn(model: torch.nn.Module, batch: int, root: Path | None) -> tuple[float, list[float]]:
    """Seconds of the whole turn, and of each commit."""
    device = Device("cpu")
    job = job_of(model, STEPS, device)
    data = random_data((3, 32, 32), STEPS * batch, batch, device)
    saves = NoCheckpoints() if root is None else AsyncCheckpointer(root, {}, keep=2)
    plan = LoopOptions(log_every=50, evaluate_every=NEVER, save_every=NEVER if root is None else EVERY, monitor=None)
    commits: list[float] = []

    def emit(event: object) -> None:
        if isinstance(event, Saved):
            commits.append(event.seconds)

    began = perf_counter()
    train(job, data, plan, device, saves, emit, lambda: False)
    for saved in saves.completed(wait=True):
        emit(saved)
    return perf_counter() - began, commits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    Device("cpu").configure_torch()
    torch.manual_seed(0)
    model = ResNet((3, 32, 32), 10)
    with tempfile.TemporaryDirectory(dir=".") as name:
        root = Path(name) / "checkpoints"
        turn(model, arguments.batch, None)
        ratios, commits, steps = [], [], []
        for number in range(arguments.repeats):
            pair = [root, None] if number % 2 else [None, root]
            taken = {place: turn(model, arguments.batch, place) for place in pair}
            ratios.append(taken[None][0] / taken[root][0])
            commits += taken[root][1]
            steps.append(taken[None][0] / STEPS)
    ratio = statistics.median(ratios)
    print(f"ResNet-18, batch {arguments.batch}, {torch.get_num_threads()} threads, {arguments.repeats} turns of each")
    print(f"  a step {statistics.median(steps):.3f} s, a commit {statistics.median(commits):.3f} s beside it")
    print(
        f"  steps/s with two saves in {STEPS} steps / without: median {ratio:.3f} (bar {BAR}), {min(ratios):.3f} to ",
        end="",
    )
    print(f"{max(ratios):.3f}")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
