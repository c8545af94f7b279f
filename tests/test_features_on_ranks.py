"""Every feature of a run, on two ranks: the numbers of one process that takes each batch in two micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
NORMS = "weights from data, batch norms"
FEATURES = {
    "average of the weights": Feature(("ema=0.9",)),
    "clipping": Feature(("clip_norm=0.05",), divided=CLOSE),
    "accumulation": Feature((), pieces=4, accumulate=2, same=CLOSE, divided=CLOSE),
    "patience": Feature(("patience=1", "evaluate_every=1steps", "optim.lr=1e-12")),
    "rates of parts": Feature(("lr_scale={layers.0.*: 0.1}",)),
    "frozen parts": Feature(("init.freeze=layers.0.*", "model.hidden=[16,16]")),
    "LoRA": Feature(("init.lora.rank=2",)),
    "weights of a run": Feature(("init.from=FIRST",)),
    "Muon": Feature(("optim=muon", "model.hidden=[16,16]")),
    "dropout and augmentation": Feature(("model.dropout=0.1", "dataset.augment.flip=true")),
    "balanced classes": Feature(("sampler=balanced",)),
    NORMS: Feature(
        ("dataset=image_folder", "dataset.root=PICTURES", "model=whitened_cnn", "model.widths=[8,8,8]", "batch_size=9"),
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
    words = [word.replace("FIRST", str(first)).replace("PICTURES", str(tmp_path / "kinds")) for word in feature.words]
    if any(word.startswith("dataset.root") for word in words):
        _draw_pictures(tmp_path / "kinds")
    given = (*(word for word in WORDS if not word.startswith("model") or name != NORMS), *words)
    whole = trained(tmp_path / "whole", *given, f"accumulate={feature.pieces}")
    ranks = trained(
        tmp_path / "ranks", *given, f"accumulate={feature.accumulate}", "device.count=2", f"device.shard={shard}"
    )
    within = feature.same if shard == "none" else feature.divided
    mine, theirs = (_numbers(run) for run in (ranks, whole))
    assert mine.keys() == theirs.keys()
    assert {name: _distance(mine[name], theirs[name]) <= within for name in theirs} == dict.fromkeys(theirs, True)
    for one, other in zip(records(ranks), records(whole), strict=True):
        exact = {key: _within(value, within) for key, value in other.items()}
        if shard == "full" and "grad_norm" in other:  # which is added up from the parts
            exact["grad_norm"] = pytest.approx(other["grad_norm"], rel=CLOSE)
        assert one == exact


def _draw_pictures(root: Path) -> None:
    dice = np.random.default_rng(0)
    for kind in ("dark", "light"):
        (root / kind).mkdir(parents=True)
        for number in range(20):
            pixels = dice.integers(100 if kind == "dark" else 256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")


def _within(value: object, within: float) -> object:
    return pytest.approx(value, rel=within) if within and isinstance(value, float) else value


def _numbers(run: Path) -> dict[str, torch.Tensor]:
    """All numbers of the newest checkpoint, by file."""
    found, _ = checkpoint.load_newest(run / "checkpoints")
    assert found is not None
    return {
        group: torch.cat([named[name].double().flatten() for name in sorted(named)])
        for group, named in found.tensors.items()
    }


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative to the norm; 0 only where all bits are the same."""
    return 0.0 if torch.equal(a, b) else max(1e-300, float((a - b).norm() / b.norm()))
