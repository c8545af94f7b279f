"""Run directories written by hand: what a training would leave of its config and its results, without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

MODELS = {"mlp": {"hidden": [16]}, "cnn": {"channels": 8, "hidden": 32}}
TARGETS = {"mlp": "bigmodel.models.mlp.MLP", "cnn": "bigmodel.models.cnn.CNN"}


def made_run(
    path: Path,
    accuracy: float | None = 0.9,
    *,
    model: str = "mlp",
    lr: float = 0.1,
    seed: int = 0,
    state: str | None = "done",
    started: str = "2025-11-24T12:00:00+00:00",
    **config: Any,
) -> Path:
    """A run that reached this accuracy in validation, and a hundredth less on the test split."""
    path.mkdir(parents=True)
    tree = {
        "model": {"_target_": TARGETS[model], **MODELS[model]},
        "optim": {"_target_": "bigmodel.optim.sgd.sgd", "lr": lr},
        "dataset": {"_target_": "bigmodel.datasets.images.digits.digits", "num_classes": 10},
        "seed": seed,
        "monitor": "val/accuracy",
        "output_dir": str(path.parent),
        **config,
    }
    (path / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps({"time": started, "git": None}), encoding="utf-8")
    summary: dict[str, Any] = {"state": state, "monitor": "val/accuracy", "step": 6, "steps": 6, "seconds": 1.5}
    events = []
    if accuracy is not None:
        summary |= {"test": {"accuracy": accuracy - 0.01, "loss": 1 - accuracy, "confusion": [[1]]}}
        summary |= {"val": {"accuracy": accuracy}, "best": {"step": 6, "value": accuracy, "since": 0}}
        for step, share in ((3, 0.5), (6, 1.0)):
            events.append({"step": step, "epoch": step / 3, "split": "val", "accuracy": accuracy * share, "best": True})
    (path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    if state is not None:
        (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return path


def made_sweep(path: Path, accuracies: dict[float, list[float]]) -> Path:
    """A sweep over `optim.lr`, with as many seeds for each as there are accuracies."""
    jobs = [(lr, seed, value) for lr, values in accuracies.items() for seed, value in enumerate(values)]
    for number, (lr, seed, value) in enumerate(jobs):
        made_run(path / str(number), value, lr=lr, seed=seed)
    return path
