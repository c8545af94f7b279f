"""Samples per second of ranks of one thread against one process of as many threads, in turns, by the command line.

python benchmarks/ranks.py [--turns 3] [--only resnet18] [--ranks 2] [--pieces 8] [--sums 11.2e6]

With `--pieces`, the price of sums that no number of ranks changes: `pieces=8` against `accumulate=8` in one process,
and against the plain sum on ranks. With `--sums`, the seconds in which ranks add up so many numbers: in order, and
by the collective, which adds as it likes. The rate is that of `summary.json`: updates and the waiting for data, without
start-up and evaluation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist

from bigmodel.runtime.distributed import joined
from bigmodel.runtime.launch import Place, start_ranks
from bigmodel.runtime.signals import StopRequest
from bigmodel.runtime.watch import Watch

CASES = {
    "resnet18": ["model=resnet18", "dataset=digits", "batch_size=128", "epochs=1", "limit_batches=8"],
    "mlp": ["model=mlp", "model.hidden=[1024,1024]", "dataset=digits", "batch_size=256", "epochs=20"],
    "gpt": [
        *("model=gpt", "optim=adamw", "schedule=constant", "task=language_modelling", "loss=null", "monitor=val/loss"),
        *("dataset=text", "dataset.context=128", "batch_size=32", "epochs=1", "limit_batches=12"),
    ],
}


def rate(words: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bigmodel", "train", "device=cpu", "listeners=[]", f"output_dir={folder}"]
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"exit code {done.returncode}: {done.stderr}")
        (summary,) = Path(folder).glob("*/*/summary.json")
        return float(json.loads(summary.read_text(encoding="utf-8"))["samples_per_s"])


def compare(title: str, words: list[str], one: list[str], other: list[str], turns: int) -> None:
    """Print the rate of `other` over that of `one`, of each turn and of the medians."""
    rates = [[rate([*words, *extra]) for extra in (one, other)] for _ in range(turns)]
    medians = [statistics.median(taken) for taken in zip(*rates, strict=True)]
    each = ", ".join(f"{b / a:.2f}" for a, b in rates)
    print(f"{title}: {' '.join(other)} {medians[1]:.1f} samples/s, {' '.join(one)} {medians[0]:.1f}", flush=True)
    print(f"  ratio {medians[1] / medians[0]:.3f} (of each turn: {each})", flush=True)


def time_sums(ranks: int, size: int, turns: int) -> None:
    """Print the seconds of a sum over the ranks, in their order and by the plain collective, in turns."""

    def run(place: Place, stop: StopRequest) -> int:
        torch.set_num_threads(1)
        with joined(place, use_gpus=False) as world:
            flat = torch.randn(size)
            ways: dict[str, Callable[[], object]] = {
                "in the order of the ranks": lambda: world.sum_step([flat], {"count": torch.zeros(())}),
                "by the plain collective": lambda: dist.all_reduce(flat),
            }
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(turns + 1):
                for name, add in ways.items():
                    dist.barrier()
                    began = perf_counter()
                    add()
                    taken[name].append(perf_counter() - began)
            for name, seconds in taken.items() if place.rank == 0 else ():
                print(
                    f"{size:,} numbers on {ranks} ranks, {name}: {statistics.median(seconds[1:]):.3f} s",
                    file=sys.stderr,
                )
        return 0

    with contextlib.closing(Watch(ranks)) as watch:
        start_ranks(ranks, run, StopRequest().install(), watch, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--pieces", type=int)
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--sums", type=float)
    given = parser.parse_args()
    if given.sums:
        time_sums(given.ranks, int(given.sums), 3 * given.turns)
        return 0
    together = ["device.count=1", f"device.threads={given.ranks}"]
    ranks = [f"device.count={given.ranks}", "device.threads=1"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write("the quick brown fox jumps over the lazy dog and runs on\n" * 20_000)
        text.flush()
        for name, words in CASES.items():
            if given.only not in (None, name):
                continue
            case = [*words, f"dataset.path={text.name}"] if name == "gpt" else words
            if given.pieces:
                accumulate, pieces = f"accumulate={given.pieces}", f"pieces={given.pieces}"
                compare(name, [*case, *together], [accumulate], [pieces], given.turns)
                compare(name, [*case, *ranks], ["pieces=null"], [pieces], given.turns)
            else:
                compare(name, case, together, ranks, given.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
