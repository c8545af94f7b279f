"""Stopped after any step of three epochs, with any number of workers, a run goes on to the same samples and bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campaign import chosen, count
from conftest import contents, fingerprint
from forks import finished, launch

EPOCHS, BATCH, TRAIN, PIECES = 3, 8, 37, 2  # the last of five batches is a smaller one
PER_EPOCH = 5
STEPS = EPOCHS * PER_EPOCH
# Images that tell who they are: the first channel is the sample's number all over, so that no augmentation hides it;
# the second is a ramp, by which a flip or crop shows. The model writes down all that it is shown, and asks the process
# to stop in the middle of a step if it is told to.
PROBE = f"""
import hashlib, json, os, signal

import torch
from torch import nn

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.source import InMemoryImages


def numbered(num_classes, input_shape):
    def split(first, size):
        pixels = torch.zeros(size, 2, 8, 8, dtype=torch.uint8)
        pixels[:, 0] = torch.arange(first, first + size, dtype=torch.uint8)[:, None, None]
        pixels[:, 1] = torch.arange(1, 65, dtype=torch.uint8).view(8, 8)
        return InMemoryImages(pixels, torch.arange(size) % 3)

    splits = {{"train": split(1, {TRAIN}), "val": split(101, 9), "test": split(201, 9)}}
    return ImageDataset(
        classes=["a", "b", "c"], input_shape=input_shape, mean=[0.0, 0.0], std=[1.0, 1.0], val_fraction=0.0,
        augment=ImageAugment(flip=True, crop=1), fingerprint="numbered",
        sources={{name: (lambda arrays=arrays: arrays) for name, arrays in splits.items()}},
        sizes={{name: len(arrays.labels_N) for name, arrays in splits.items()}},
    )


class Witness(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.seen = 0

    def forward(self, x):
        pixels = (x * 255).round().to(torch.uint8)
        line = {{
            "training": self.training,
            "samples": pixels[:, 0].amax((1, 2)).tolist(),
            "augmented": hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest(),
        }}
        with open(os.environ["WITNESS"], "a") as file:
            file.write(json.dumps(line) + "\\n")
        self.seen += self.training
        if self.training and self.seen == {PIECES} * int(os.environ.get("STOP_AFTER", "-1")):
            os.kill(os.getpid(), signal.SIGTERM)
        return self.body(x)
"""
CONF = {
    "model/witness.yaml": "# What the model is shown, written down.\n_target_: probe.Witness\n",
    "dataset/numbered.yaml": "# Numbered images.\n_target_: probe.numbered\nnum_classes: 3\ninput_shape: [2, 8, 8]\n",
}
WORDS = (
    *("--config-dir", "conf", "trust=[probe]", "device=cpu", "device.threads=1", "model=witness", "dataset=numbered"),
    *("optim=adamw", "ema=0.9", f"accumulate={PIECES}", f"batch_size={BATCH}", f"epochs={EPOCHS}"),
    *("log_every=2steps", "evaluate_every=4steps", "save_every=100epochs"),
)


def _home(directory: Path) -> Path:
    (directory / "probe.py").write_text(PROBE)
    for name, text in CONF.items():
        file = directory / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


def _train(home: Path, *words: str, code: int, stop_after: int | None = None) -> Path:
    environment = {"WITNESS": str(home / "witness.jsonl")}
    if stop_after is not None:
        environment["STOP_AFTER"] = str(stop_after)
    output = home / "output"
    ended = finished(launch(*words, cwd=home, output=output, environment=environment))
    assert ended == code, output.read_text()
    (run,) = home.glob("outputs/*/*")
    return run


def _witnessed(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "witness.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose data lies in memory, and was never stopped."""
    home = _home(tmp_path_factory.mktemp("unbroken"))
    _train(home, *WORDS, code=0)
    trained = [line["samples"] for line in _witnessed(home) if line["training"]]
    assert len(trained) == STEPS * PIECES
    per_epoch = PER_EPOCH * PIECES
    for epoch in range(EPOCHS):
        samples = [number for piece in trained[epoch * per_epoch : (epoch + 1) * per_epoch] for number in piece]
        assert sorted(samples) == list(range(1, TRAIN + 1))
    assert len({line["augmented"] for line in _witnessed(home) if line["training"]}) == len(trained)
    return home


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_every_step(unbroken: Path, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    (whole,) = unbroken.glob("outputs/*/*")
    points = [(step, workers) for step in range(1, STEPS) for workers in (0, 1, 2)]
    key, quick, full = "STEPS", 6, len(points)
    for trial in campaign("stop and resume at a step, with 0, 1 or 2 workers", key=key, quick=quick, full=full):
        with trial:
            step, workers = chosen(points, trial, count(key, quick, full))
            directory = tmp_path / str(trial.number)
            directory.mkdir()
            home = _home(directory)
            run = _train(home, *WORDS, "resident_gb=0", f"workers={workers}", code=75, stop_after=step)
            assert json.loads((run / "summary.json").read_text())["step"] == step
            assert len([line for line in _witnessed(home) if line["training"]]) == step * PIECES
            _train(home, f"resume={run}", "trust=[probe]", code=0)
            what = f"after step {step}, {workers} workers"
            assert _witnessed(home) == _witnessed(unbroken), f"{what}: other samples or augmentation"
            assert fingerprint(run) == fingerprint(whole), f"{what}: other weights"
            ours, theirs = contents(run), contents(whole)  # configs differ in workers
            for name in ("metrics.jsonl", "summary.json"):
                assert ours[name] == theirs[name], f"{what}: other {name}"
