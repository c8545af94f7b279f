"""A recipe's accuracy over several seeds, its seconds of training, and the share of the machine's peak they are at.

python benchmarks/recipe.py [cifar10_94] [--seeds 3] [--read DIRECTORY]

The runs are one after the other on all cores, by `bigmodel-train experiment=... seeds=... jobs=1`; `--read` takes those
that are already in a sweep's directory. Seconds of training are those of the log: reading data and updates, not
start-up, the test or saves. Exit code 1 if the mean is below what the recipe's name says, or, where the processor has
bf16, if the mean time is above 13 minutes or below 85 % of the peak.
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

from bigmodel.config import from_yaml
from bigmodel.device import Device
from bigmodel.peak import measured_peak

MINUTES, SHARE = 13, 0.85
UNITS = {"MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15}


def arithmetic(config: Path) -> float:
    """FLOP of the whole run of this config, as its dry run tells them."""
    words = ["--config-path", str(config.parent), "--config-name", config.stem, "dry_run=true"]
    plan = subprocess.run(
        [sys.executable, "-m", "bigmodel", "train", *words], capture_output=True, text=True, check=True
    )
    (found,) = re.findall(r"([\d.]+) ([MGTP]FLOP) in all", plan.stdout)
    return float(found[0]) * UNITS[found[1]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="cifar10_94")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--read", type=Path, help="a directory with the runs")
    arguments = parser.parse_args()
    bar = float(arguments.recipe.rpartition("_")[2]) / 100
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.read or Path(name)
        if arguments.read is None:
            words = [f"experiment={arguments.recipe}", "device=auto", f"seeds={arguments.seeds}", "jobs=1"]
            subprocess.run([sys.executable, "-m", "bigmodel", "train", *words, f"output_dir={folder}"], check=True)
        runs = sorted(path.parent for path in folder.rglob("summary.json"))
        summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
        done = [(run, summary) for run, summary in zip(runs, summaries, strict=True) if summary["state"] == "done"]
        assert done, f"no finished run in {folder}"
        settled = from_yaml(done[0][0] / "config.yaml", ()).tree["device"]
        flops = arithmetic(done[0][0] / "config.yaml")
    device = Device("cpu", precision=settled["precision"], channels_last=settled["channels_last"])
    device.prepare()
    peak = measured_peak(device)
    accuracies = [summary["test"]["accuracy"] for _, summary in done]
    minutes = [(summary["data_s"] + summary["step_s"]) / 60 for _, summary in done]
    share = flops / 60 / statistics.mean(minutes) / peak.flops_per_s
    print(f"{arguments.recipe}, {settled['precision']}, {device.name}: {flops / 1e12:.0f} TFLOP a run")
    print(f"test accuracy {statistics.mean(accuracies):.2%} in the mean of {len(done)}: ", end="")
    print(", ".join(f"{accuracy:.2%}" for accuracy in accuracies))
    print(f"minutes of training: {', '.join(f'{each:.1f}' for each in minutes)}; ", end="")
    print(f"{share:.0%} of the measured peak of {peak.flops_per_s / 1e9:.0f} GFLOP/s ({peak.operation})")
    met = statistics.mean(accuracies) >= bar
    if settled["precision"] == "bf16":
        met &= statistics.mean(minutes) <= MINUTES and share >= SHARE
    else:
        print(f"no bf16 here: the bar of {MINUTES} minutes and {SHARE:.0%} is not asked")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
