"""Every feature of a run, on two ranks: the numbers of one process that takes each batch in two micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bigmodel.runs import checkpoint
from conftest import records
from several_ranks import SHORT, trained

WORDS = (*SHORT, "limit_batches=3", "epochs=2", "optim=adamw", "save_every=9999steps")


@dataclass(frozen=True)
class Feature:
    """Words of a command line; `same` is how close numbers are: bitwise with 0. `divided` is that of divided models."""

    words: tuple[str, ...]
    pieces: int = 2  # micro-batches of the one process
    accumulate: int = 1  # of the ranks
    same: float = 0.0
    divided: float = 0.0


CLOSE = 1e-5
FEATURES = {
    "average of the weights": Feature(("ema=0.9",)),
    "clipping": Feature(("clip_norm=0.05",), divided=CLOSE),
    "accumulation": Feature((), pieces=4, accumulate=2, divided=CLOSE),
    "patience": Feature(("patience=1", "evaluate_every=1steps", "optim.lr=1e-12")),
    "rates of parts": Feature(("lr_scale={layers.0.*: 0.1}",)),
    "frozen parts": Feature(("init.freeze=layers.0.*", "model.hidden=[16,16]")),
    "LoRA": Feature(("init.lora.rank=2",)),
    "weights of a run": Feature(("init.from=FIRST",)),
    "Muon": Feature(("optim=muon", "model.hidden=[16,16]")),
    "dropout and augmentation": Feature(("model.dropout=0.1", "dataset.augment.flip=true")),
    "balanced classes": Feature(("sampler=balanced",)),
    "weights from data, batch norms": Feature(
        ("model=whitened_cnn", "model.widths=[8,8,8]", "~model.hidden", "limit_batches=1", "optim=sgd", "epochs=1"),
        pieces=1, same=1e-3, divided=1e-3,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("first"), *WORDS, "seed=1")


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["none", "full"])
@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_the_same_on_two_ranks(name: str, shard: str, first: Path, tmp_path: Path) -> None:
    feature = FEATURES[name]
    words = [word.replace("FIRST", str(first)) for word in feature.words]
    kept = [word for word in WORDS if "~model.hidden" not in words or not word.startswith(("model", "optim"))]
    given = (*kept, *(word for word in words if not word.startswith("~")))
    whole = trained(tmp_path / "whole", *given, f"accumulate={feature.pieces}")
    ranks = trained(
        tmp_path / "ranks", *given, f"accumulate={feature.accumulate}", "device.count=2", f"device.shard={shard}"
    )
    within = feature.same if shard == "none" else feature.divided
    mine, theirs = (_numbers(run) for run in (ranks, whole))
    assert mine.keys() == theirs.keys()
    worst = max(_distance(mine[key], value) for key, value in theirs.items())
    assert worst <= within
    for one, other in zip(records(ranks), records(whole), strict=True):
        exact = {key: _within(value, within) for key, value in other.items()}
        if shard == "full" and "grad_norm" in other:  # which is added up from the parts
            exact["grad_norm"] = pytest.approx(other["grad_norm"], rel=CLOSE)
        assert one == exact


def _within(value: object, within: float) -> object:
    return pytest.approx(value, rel=within) if within and isinstance(value, float) else value


def _numbers(run: Path) -> dict[str, torch.Tensor]:
    found, _ = checkpoint.load_newest(run / "checkpoints")
    assert found is not None
    return {f"{group}.{name}": value for group, named in found.tensors.items() for name, value in named.items()}


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative; 0 only where all bits are the same."""
    if torch.equal(a, b):
        return 0.0
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12)) or 1e-300
