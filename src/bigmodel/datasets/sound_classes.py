"""Short sounds and their classes, as spectrograms of equal size, which any model of images takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bigmodel.datasets.mel import LogMel, fitted
from bigmodel.datasets.spec_augment import SpecAugment
from bigmodel.datasets.tensors import TensorDataset
from bigmodel.datasets.wav import read_wav

Files = Sequence[str | os.PathLike[str]]


def sound_classes(
    classes: Sequence[str],
    splits: Mapping[str, tuple[Files, Sequence[int]]],
    frames: int,
    features: LogMel,
    val_fraction: float,
    augment: SpecAugment,
    fingerprint: str,
    num_classes: int | None,
    input_shape: Sequence[int] | None,
) -> TensorDataset:
    """Inputs (N, 1, frames, mels) and class numbers (N). Longer sounds are cut, shorter ones filled up with silence.

    Raises:
        DataError: a file is damaged.
        ValueError: `num_classes` or `input_shape`, if not None, is not the data's.
    """
    shape = [1, frames, features.mels]
    if num_classes not in (None, len(classes)) or list(input_shape or shape) != shape:
        raise ValueError(f"num_classes, input_shape: the data has {len(classes)} and {shape}; leave them null")
    return TensorDataset(
        splits={
            name: (_spectrograms(paths, frames, features), torch.tensor(labels))
            for name, (paths, labels) in splits.items()
        },
        facts={"num_classes": len(classes), "input_shape": shape},
        summary=f"{len(classes)} classes, {frames} frames of {features.mels} mels",
        carried={
            "kind": "bigmodel.predicting.sounds.Sounds",
            "classes": list(classes),
            "frames": frames,
            "features": features.node(),
        },
        fingerprint=fingerprint,
        val_fraction=val_fraction,
        augment=augment,
    )


def _spectrograms(paths: Files, frames: int, features: LogMel) -> Tensor:
    return torch.stack([fitted(features(read_wav(path, features.rate)), frames) for path in paths])[:, None]
