"""Your own sounds: `root/class/sound.flac`, or `root/{train,val,test}/class/sound.wav`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.sound_check import find_broken_sounds
from bigmodel.datasets.audio.sound_classes import spectrogram_dataset
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.wav import SUFFIXES
from bigmodel.datasets.files.class_counts import warn_held_out_classes
from bigmodel.datasets.files.class_folders import find_class_folders
from bigmodel.datasets.loading.tensors import TensorDataset


def audio_folder(
    root: str,
    frames: PositiveInt,
    features: LogMel,
    val_fraction: ProperFraction,
    augment: SpecAugment,
    test_fraction: ProperFraction = 0.0,
    num_classes: PositiveInt | None = None,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
) -> TensorDataset:
    """Spectrograms (N, 1, frames, mels); the classes are the sorted names of the training folders.

    Without a `val` folder, `val_fraction` of the training sounds is held out. Without `test`, `test_fraction` of
    them is the test split, the same for every seed. With `broken="skip"` every file is decoded once, and broken ones
    are left out; with "refuse" what only decoding finds stops the run where a batch needs it, or before the first where
    all sounds are kept in memory.

    Raises:
        ConfigError: the number of classes or the shape is not the data's.
        DataError: a folder is missing or holds no sound files, some are broken, or a class is unknown in training.
    """
    check = partial(find_broken_sounds, decode=broken == "skip")
    found = find_class_folders(root, SUFFIXES, "sound file", test_fraction, check=check, broken=broken)
    made = spectrogram_dataset(
        found.classes,
        found.splits,
        frames,
        features,
        val_fraction,
        augment,
        found.fingerprint,
        num_classes,
        input_shape,
    )
    notes = [*found.notes]
    if "val" not in found.splits:
        notes += warn_held_out_classes(found.classes, found.splits["train"][1], val_fraction)
    return replace(made, notes=notes)
