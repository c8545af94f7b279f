"""Datasets of short sounds with classes, as spectrograms of equal size, which any image model takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.datasets.audio.mel import LogMel, pad_or_trim
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.wav import read_header, read_wav, resampled_length
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.on_demand import SamplesOnDemand
from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.formatting import format_count

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
    """Inputs (N, 1, frames, mels) and class indices (N). Longer sounds are cut, shorter ones padded with silence.

    Headers are read now, and sounds when a loader or a batch takes them.

    Raises:
        ConfigError: `num_classes` or `input_shape`, if not None, is not the data's.
        DataError: a file is damaged, as far as its header shows it.
    """
    shape = [1, frames, features.mels]
    properties = {"num_classes": len(classes), "input_shape": shape}
    check_claims({"num_classes": num_classes, "input_shape": input_shape}, properties)
    reader = SpectrogramReader(frames, features)
    what = f"{format_count(len(classes), 'class', 'classes')}, {frames} frames of {features.mels} mels"
    return TensorDataset(
        splits={
            name: (SamplesOnDemand([os.fspath(path) for path in paths], reader, tuple(shape)), torch.tensor(labels))
            for name, (paths, labels) in splits.items()
        },
        properties=properties,
        description="; ".join([what, *_changes(splits, frames, features)]),
        spec={
            "kind": "bigmodel.inference.processors.sounds.AudioClassificationProcessor",
            "classes": list(classes),
            "frames": frames,
            "features": features.node(),
        },
        fingerprint=fingerprint,
        val_fraction=val_fraction,
        augment=augment,
        files={name: [os.fspath(path) for path in paths] for name, (paths, _) in splits.items()},
    )


@dataclass(frozen=True)
class SpectrogramReader:
    """Reader of sound files: float32 (1, frames, mels)."""

    frames: int
    features: LogMel

    def __call__(self, path: str) -> Tensor:
        """Raises DataError if the file is damaged."""
        return pad_or_trim(self.features(read_wav(path, self.features.rate)), self.frames)[None]


def _changes(splits: Mapping[str, tuple[Files, Sequence[int]]], frames: int, features: LogMel) -> list[str]:
    """`12 sounds brought from 16000 to 8000 Hz`, for each change that reading makes, by the headers of all files.

    Raises:
        DataError: a file is damaged, as far as its header shows it.
    """
    counts: Counter[str] = Counter()
    for path in (path for paths, _ in splits.values() for path in paths):
        header = read_header(path)
        length = resampled_length(header.num_samples, header.rate, features.rate)
        counts[f"brought from {header.rate} to {features.rate} Hz"] += header.rate != features.rate
        counts["of several channels, averaged"] += header.channels > 1
        counts[f"cut after {frames * features.hop / features.rate:.3g} s"] += features.num_frames(length) > frames
    return [f"{count} sound{'s' * (count > 1)} {what}" for what, count in counts.items() if count]
