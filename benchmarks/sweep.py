"""Seconds for many short jobs on the CPU: one sweep against as many `bigmodel-train` processes, one after another.

python benchmarks/sweep.py [--jobs 20] [--repeats 1]

The sweep must be at least 3 times faster. It saves the imports of all jobs but one, and runs as many jobs at a time as
there are cores; the third line shows what the second alone is worth: separate processes, as many at a time.
Each job trains a small MLP on the digits for one epoch of 5 steps. Exit code 1 if the bar is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BAR = 3.0
TRAIN = [sys.executable, "-c", "from bigmodel.cli import train; train()"]  # what the console script does
JOB = ["device=cpu", "model=mlp", "epochs=1", "limit_batches=5"]


def run(words: Sequence[str], folder: Path, threads: int | None = None) -> None:
    environment = os.environ if threads is None else os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*TRAIN, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")


def sweep(jobs: int, folder: Path) -> None:
    run(["-m", *JOB, f"seed={','.join(map(str, range(jobs)))}"], folder)


def separate(jobs: int, folder: Path) -> None:
    for seed in range(jobs):
        run([*JOB, f"seed={seed}"], folder)


def side_by_side(jobs: int, folder: Path) -> None:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda seed: run([*JOB, f"seed={seed}"], folder, threads=1), range(jobs)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.pop("BIGMODEL_TRACEBACK", None)
    measures = {"one sweep": sweep, "processes, one by one": separate, "processes, one a core": side_by_side}
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep(2, folder)  # byte code and the disk cache, once
        for _ in range(arguments.repeats):
            for what, measure in measures.items():
                began = time.perf_counter()
                measure(arguments.jobs, folder)
                seconds[what].append(time.perf_counter() - began)
    median = {what: statistics.median(values) for what, values in seconds.items()}
    for what, value in median.items():
        print(f"{what:<22} {value:6.1f} s for {arguments.jobs} jobs   ({value / median['one sweep']:.1f} x the sweep)")
    ratio = median["processes, one by one"] / median["one sweep"]
    print(f"the sweep is {ratio:.1f} times faster (bar {BAR})")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
