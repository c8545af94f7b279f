"""A recipe's accuracy over several seeds, its minutes of training, and the share of the machine's peak they are at.

python benchmarks/recipe.py [cifar10_94] [--seeds 3] [--read DIRECTORY]

The runs are one after the other on all cores, by `bigmodel-train experiment=... seeds=... jobs=1`; `--read` takes those
that are already in a sweep's directory. Minutes of training are those of the log: reading data and updates, not
start-up, the test or saves. Exit code 1 if a run is not done or the mean is below what the recipe's name says, or,
where the processor has bf16, if the mean time is above 13 minutes or below 85 % of the peak.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bigmodel.config.saved import load_config
from bigmodel.runtime.device import Device
from bigmodel.training.tuning.peak_flops import measure_peak_flops

MINUTES, SHARE = 13, 0.85
UNITS = {"MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15}


def arithmetic(config: Path) -> float:
    """FLOP of the whole run of this config, as its dry run tells them."""
    words = ["--config-path", str(config.parent), "--config-name", config.stem, "dry_run=true"]
    command = [sys.executable, "-m", "bigmodel", "train", *words]
    plan = subprocess.run(command, capture_output=True, text=True, check=True)
    (found,) = re.findall(r"([\d.]+) ([MGTP]FLOP) in all", plan.stdout)
    return float(found[0]) * UNITS[found[1]]


def minutes(run: Path) -> float:
    """Of training, by the log, however often the run was resumed."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sum(line["data_s"] + line["step_s"] for line in lines if line["split"] == "train") / 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="cifar10_94")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--read", type=Path, help="a directory with the runs")
    arguments = parser.parse_args()
    bar = float("0" + "".join(re.findall(r"_(\d\d)$", arguments.recipe))) / 100
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.read or Path(name)
        if arguments.read is None:
            words = [f"experiment={arguments.recipe}", "device=auto", f"seeds={arguments.seeds}", "jobs=1"]
            subprocess.run([sys.executable, "-m", "bigmodel", "train", *words, f"output_dir={folder}"], check=True)
        runs = sorted(path.parent for path in folder.rglob("metrics.jsonl"))
        summaries = [json.loads((run / "summary.json").read_text()) for run in runs if (run / "summary.json").exists()]
        done = bool(runs) and [summary["state"] for summary in summaries] == ["done"] * len(runs)
        if not done:
            print(f"not all of {len(runs)} runs in {folder} are done", file=sys.stderr)
            return 1
        settled = load_config(runs[0] / "config.yaml", ()).values["device"]
        flops, taken = arithmetic(runs[0] / "config.yaml"), [minutes(run) for run in runs]
    names = ("kind", "precision", "channels_last", "threads")
    device = Device(**{name: settled[name] for name in names})
    device.configure_torch()
    peak = measure_peak_flops(device)
    accuracies = [summary["test"]["accuracy"] for summary in summaries]
    share = flops / 60 / statistics.mean(taken) / peak.flops_per_s
    print(f"{arguments.recipe}, {settled['precision']}, {device.name}: {flops / 1e12:.0f} TFLOP a run")
    print(f"test accuracy {statistics.mean(accuracies):.2%} in the mean of {len(runs)}: ", end="")
    print(", ".join(f"{accuracy:.2%}" for accuracy in accuracies))
    print(f"minutes of training: {', '.join(f'{each:.1f}' for each in taken)}; ", end="")
    print(f"{share:.0%} of the measured peak of {peak.flops_per_s / 1e9:.0f} GFLOP/s ({peak.operation})")
    met = statistics.mean(accuracies) >= bar
    if settled["precision"] == "bf16":
        met &= statistics.mean(taken) <= MINUTES and share >= SHARE
    else:
        print(f"no bf16 here: the bar of {MINUTES} minutes and {SHARE:.0%} is not asked")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
