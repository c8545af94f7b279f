"""Seconds until something happens, against the interpreter alone and against `import torch` alone, in turns.

python benchmarks/startup.py [--repeats 7]

Refusing a wrong key and printing `--help` must take less than 0.5 s and import no torch; the first training step must
be done at most 0.7 s later than `python -c "import torch"` ends. Exit code 1 if a bar is missed.
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

ANSWER_BAR = 0.5
STEP_BAR = 0.7
TRAIN = [sys.executable, "-c", "from bigmodel.cli import train; train()"]  # what the console script does
LISTENER = """
import pathlib, time
from bigmodel.events import Stepped

class FirstStep:
    def __init__(self, directory):
        self.file = pathlib.Path("first_step")

    def __call__(self, event):
        if isinstance(event, Stepped) and not self.file.exists():
            self.file.write_text(repr(time.time()))

    def close(self):
        pass
"""


def run(words: list[str], folder: Path, code: int = 0) -> float:
    began = time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != code:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}, not {code}\n{done.stderr}")
    return seconds


def first_step(folder: Path) -> float:
    (folder / "first_step").unlink(missing_ok=True)
    words = ["--config-dir", "conf", "trust=[first_step_listener]", "listeners=[console,first_step]"]
    began = time.time()
    run([*TRAIN, *words, "epochs=1", "limit_batches=1", "device=cpu"], folder)
    return float((folder / "first_step").read_text()) - began


def imports_torch(words: list[str], folder: Path) -> bool:
    done = subprocess.run([sys.executable, "-X", "importtime", *words[1:]], cwd=folder, capture_output=True, text=True)
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    os.environ.pop("BIGMODEL_TRACEBACK", None)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles our source anew: 50 ms more
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conf" / "listeners").mkdir(parents=True)
        (folder / "first_step_listener.py").write_text(LISTENER)
        (folder / "conf" / "listeners" / "first_step.yaml").write_text(
            "first_step:\n  _target_: first_step_listener.FirstStep\n"
        )
        wrong, usage = [*TRAIN, "optim.lrr=1"], [*TRAIN, "--help"]
        measures = {
            "python -c pass": lambda: run([sys.executable, "-c", "pass"], folder),
            "bigmodel-train --help": lambda: run(usage, folder),
            "bigmodel-train optim.lrr=1": lambda: run(wrong, folder, code=2),
            'python -c "import torch"': lambda: run([sys.executable, "-c", "import torch"], folder),
            "first training step": lambda: first_step(folder),
        }
        for measure in measures.values():  # byte code and the disk cache, once
            measure()
        seconds: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(repeats):
            for name, measure in measures.items():
                seconds[name].append(measure())
        torch_free = not imports_torch(wrong, folder) and not imports_torch(usage, folder)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(f"{name:<28} {value:6.3f} s   (fastest {min(seconds[name]):.3f})")
    print()
    passed = torch_free
    print(f"torch imported by the two answers: {'no' if torch_free else 'YES'}")
    for name in ("bigmodel-train --help", "bigmodel-train optim.lrr=1"):
        passed &= median[name] < ANSWER_BAR
        print(f"{name}: {median[name] / median['python -c pass']:.1f} x python -c pass (bar {ANSWER_BAR} s)")
    pairs = zip(seconds["first training step"], seconds['python -c "import torch"'], strict=True)
    more = statistics.median(step - torch for step, torch in pairs)
    passed &= more <= STEP_BAR
    print(f"first training step: {more:+.3f} s against import torch, median of the differences (bar {STEP_BAR} s)")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
