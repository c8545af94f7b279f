"""Samples per second of two ranks of one thread against one process of two threads, in turns, by the command line.

python benchmarks/ranks.py [--turns 3] [--only resnet18] [--ranks 2]

The rate is that of `summary.json`: updates and the waiting for data, without start-up and evaluation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = {
    "resnet18": ["model=resnet18", "dataset=digits", "batch_size=128", "epochs=1", "limit_batches=8"],
    "mlp": ["model=mlp", "model.hidden=[1024,1024]", "dataset=digits", "batch_size=256", "epochs=20"],
    "gpt": [
        *("model=gpt", "optim=adamw", "schedule=constant", "task=language_modelling", "loss=null", "monitor=val/loss"),
        *("dataset=text", "dataset.context=128", "batch_size=32", "epochs=1", "limit_batches=12"),
    ],
}


def rate(words: list[str], ranks: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "bigmodel",
            "train",
            "device=cpu",
            "listeners=[]",
            f"output_dir={folder}",
            *words,
        ]
        device = [f"device.count={ranks}", f"device.threads={threads}"]
        done = subprocess.run([*command, *device], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"exit code {done.returncode}: {done.stderr}")
        (summary,) = Path(folder).glob("*/*/summary.json")
        return float(json.loads(summary.read_text(encoding="utf-8"))["samples_per_s"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--only", choices=sorted(CASES))
    arguments = parser.parse_args()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write("the quick brown fox jumps over the lazy dog and runs on\n" * 20_000)
        text.flush()
        for name, words in CASES.items():
            if arguments.only not in (None, name):
                continue
            case = [*words, f"dataset.path={text.name}"] if name == "gpt" else words
            rates: dict[int, list[float]] = {1: [], arguments.ranks: []}
            for _ in range(arguments.turns):
                for ranks, taken in rates.items():
                    taken.append(rate(case, ranks, arguments.ranks // ranks))
            one, several = (statistics.median(taken) for taken in rates.values())
            turns = ", ".join(f"{b / a:.2f}" for a, b in zip(*rates.values(), strict=True))
            print(f"{name}: {several:.1f} samples/s by ranks, {one:.1f} in one process", flush=True)
            print(f"  ratio {several / one:.3f} (of each turn: {turns})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
