"""Short sounds and their classes, as spectrograms of equal size, which any model of images takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bigmodel.datasets.audio.mel import LogMel, pad_or_trim
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.wav import read_sound, resample
from bigmodel.datasets.loading.tensors import TensorDataset

Files = Sequence[str | os.PathLike[str]]


def spectrogram_dataset(
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
    heard: Counter[str] = Counter()
    return TensorDataset(
        splits={
            name: (_spectrograms(paths, frames, features, heard), torch.tensor(labels))
            for name, (paths, labels) in splits.items()
        },
        properties={"num_classes": len(classes), "input_shape": shape},
        description="; ".join([f"{len(classes)} classes, {frames} frames of {features.mels} mels", *_changes(heard)]),
        spec={
            "kind": "bigmodel.inference.processors.sounds.AudioClassificationProcessor",
            "classes": list(classes),
            "frames": frames,
            "features": features.node(),
        },
        fingerprint=fingerprint,
        val_fraction=val_fraction,
        augment=augment,
    )


def _spectrograms(paths: Files, frames: int, features: LogMel, heard: Counter[str]) -> Tensor:
    """float32 (N, 1, frames, mels); what was changed of the sounds is counted in `heard`."""
    found = []
    for path in paths:
        sound = read_sound(path)
        whole_FM = features(resample(sound.wave_T, sound.rate, features.rate))
        found.append(pad_or_trim(whole_FM, frames))
        heard[f"brought from {sound.rate} to {features.rate} Hz"] += sound.rate != features.rate
        heard["of several channels, averaged"] += sound.channels > 1
        heard[f"cut after {frames * features.hop / features.rate:.3g} s"] += len(whole_FM) > frames
    return torch.stack(found)[:, None]


def _changes(heard: Counter[str]) -> list[str]:
    """`12 sounds brought from 16000 to 8000 Hz`, for each change that was made."""
    return [f"{count} sound{'s' * (count > 1)} {what}" for what, count in heard.items() if count]
