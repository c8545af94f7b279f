"""Samples/s of `bigmodel-train` beside a hand-written loop, the Lightning Trainer, the HF Trainer and timm's loop.

python benchmarks/compare_peers.py [--case small|resnet18] [--turns 3] [--equal]

All do the same work, a crop and a flip included, on the same real images, on the same number of threads, in turns in
one run. As they come: everybody as their documentation shows it, this tool with `device=auto`. With `--equal`, all
have the precision and layout that this tool chose. The peers are installed into build/peers on first use, over the
torch that is here. Exit code 1 if a peer is faster or the hand-written loop is ahead by more than 3 %.
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

import numpy as np
import torch
import yaml
from loop_overhead import cifar10, fashion_mnist

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("hand", "lightning_trainer", "hf_trainer", "timm_loop")
PACKAGES = ("lightning>=2.6,<3", "transformers>=5,<6", "accelerate>=1.10,<2", "timm>=1.0.20,<2")
BAR_BY_HAND = 0.97
SKIPPED = 5
OURS = {
    "small": (
        *("dataset=fashion_mnist", "model=cnn", "model.channels=8", "model.hidden=32", "batch_size=256"),
        "dataset.augment.flip=true",
    ),
    "resnet18": ("dataset=cifar10", "model=resnet18", "batch_size=128", "dataset.augment.flip=true"),
}
STEPS = {"small": 105, "resnet18": 11}
READ = {"small": fashion_mnist, "resnet18": cifar10}


def installed() -> Path:
    """The Python of the peers' own environment, which sees the packages of this one."""
    home = ROOT / "build" / "peers"
    python = home / "bin" / "python"
    if not (home / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        (site,) = home.glob("lib/python*/site-packages")
        own = next(path for path in sys.path if path.endswith("site-packages"))
        (site / "this_project.pth").write_text(f"{own}\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (home / ".installed").touch()
    return python


def ours(case: str, threads: int, folder: Path) -> tuple[float, str, bool]:
    """Samples/s of the command line, and the precision and layout it ran in."""
    words = (
        *OURS[case],
        *(f"output_dir={folder}", "dataset.augment.crop=4", "schedule=constant", "optim.lr=0.01"),
        *(f"device.threads={threads}", f"log_every={SKIPPED}steps", f"limit_batches={STEPS[case]}", "epochs=1"),
        *("device=auto", "save_every=9epochs"),
    )
    subprocess.run(
        [sys.executable, "-m", "bigmodel", "train", *words], check=True, stdout=subprocess.DEVNULL, cwd=folder
    )
    (run,) = folder.glob("*/*")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_per_s"] for line in lines if line["split"] == "train" and line["step"] > SKIPPED]
    device = yaml.safe_load((run / "config.yaml").read_text())["device"]
    return statistics.harmonic_mean(rates), device["precision"], device["channels_last"]


def peer(name: str, case: str, threads: int, data: Path, python: Path, folder: Path, equal: list[str]) -> float:
    """Samples/s of a program in peers/."""
    program = sys.executable if name == "hand" else python
    words = ["--case", case, "--steps", str(STEPS[case]), "--threads", str(threads), "--data", str(data), *equal]
    answer = subprocess.run(
        [program, ROOT / "benchmarks" / "peers" / f"{name}.py", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"},
    )
    if answer.returncode:
        sys.exit(f"{name} failed:\n{answer.stderr[-2000:]}")
    found = next(json.loads(line) for line in reversed(answer.stdout.splitlines()) if line.startswith('{"samples'))
    return float(found["samples_per_s"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(OURS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--equal", action="store_true", help="precision and layout of this tool for everybody")
    arguments = parser.parse_args()
    data = Path(os.environ.get("BIGMODEL_DATA_DIR", "data"))
    python, threads, passed = installed(), torch.get_num_threads(), True
    for case in [arguments.case] if arguments.case else OURS:
        try:
            pixels, labels = READ[case](data)
        except OSError as error:
            sys.exit(f"needs the real data: set BIGMODEL_DATA_DIR ({error})")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            file = folder / "data.npz"
            np.savez(file, pixels=pixels.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
            rates: dict[str, list[float]] = {name: [] for name in ("bigmodel-train", *PEERS)}
            equal: list[str] = []
            for turn in range(arguments.turns):
                (folder / str(turn)).mkdir()
                rate, precision, last = ours(case, threads, folder / str(turn))
                rates["bigmodel-train"].append(rate)
                equal = ["--precision", precision, *(["--channels-last"] if last else [])]
                for contestant in PEERS:
                    words = equal if arguments.equal or contestant == "hand" else []
                    rates[contestant].append(peer(contestant, case, threads, file, python, folder, words))
        print(f"{case}, {threads} threads, {arguments.turns} turns, this tool and the hand-written loop in", *equal)
        for contestant, found in rates.items():
            ratio = statistics.median(a / b for a, b in zip(rates["bigmodel-train"], found, strict=True))
            bar = BAR_BY_HAND if contestant == "hand" else 1.0
            passed &= ratio >= bar
            print(f"  {contestant:18} {statistics.median(found):8.1f} samples/s   ours / theirs {ratio:.2f}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
