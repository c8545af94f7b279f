"""Jobs a minute of a sweep whose jobs are one program, against the default launcher: small networks, in turns.

python benchmarks/vectorized.py [--jobs 8 32] [--epochs 5] [--repeats 1] [--device cpu]

Each job trains on the digits (1,293 images, batches of 64), with its own learning rate and seed, start-up, evaluations
and saves included; both launchers start a process that loads torch, and leave the same files. What is printed for a
pair of launchers is the jobs' number over the seconds of the whole command. No bar: it depends on the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = [sys.executable, "-c", "from bigmodel.cli import train; train()"]  # what the console script does
MODELS = {"mlp": ["model=mlp", "model.hidden=[64,64]"], "cnn": ["model=cnn", "model.channels=8", "model.hidden=32"]}
LAUNCHERS = {"one program": ["hydra/launcher=vectorized"], "a process a job": []}


def seconds(words: list[str], folder: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run([*TRAIN, "-m", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0 or "by themselves" in done.stdout:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    os.environ.pop("BIGMODEL_TRACEBACK", None)
    common = [f"device={arguments.device}", f"epochs={arguments.epochs}", "save_every=1000epoch"]
    print(f"{'model':<6} {'jobs':>4}  " + "  ".join(f"{name + ', jobs/min':>26}" for name in LAUNCHERS) + "   ratio")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds(["device=cpu", "model=mlp", "epochs=1", "seed=0,1"], folder)  # byte code and the disk cache, once
        for model in arguments.models:
            for jobs in arguments.jobs:
                rates = ",".join(f"{0.01 + 0.09 * job / jobs:.4f}" for job in range(jobs // 2))
                words = [*common, *MODELS[model], f"optim.lr={rates}", "seed=1,2"]
                taken: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
                for _ in range(arguments.repeats):
                    for launcher, choice in LAUNCHERS.items():
                        taken[launcher].append(seconds([*choice, *words], folder))
                rate = {launcher: 60 * jobs / statistics.median(values) for launcher, values in taken.items()}
                ratio = rate["one program"] / rate["a process a job"]
                shown = "  ".join(f"{value:>26.0f}" for value in rate.values())
                print(f"{model:<6} {jobs:>4}  {shown}   {ratio:>5.2f}", flush=True)


if __name__ == "__main__":
    main()
