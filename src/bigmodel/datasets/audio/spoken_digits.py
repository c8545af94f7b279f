"""The Free Spoken Digit Dataset (Jackson et al. 2018): English digits by six speakers at 8 kHz, CC BY-SA 4.0.

Its authors test on the recordings with the numbers 0 to 4 of each speaker and digit: 300, and 2,700 are for training.
"""

from __future__ import annotations

from pathlib import Path

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.sound_classes import spectrogram_dataset
from bigmodel.datasets.audio.sound_files import fingerprint_sounds, list_wavs
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.files.locations import find_data
from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.errors import DataError

DIGITS = [str(digit) for digit in range(10)]
_TESTED = 5
_FOLDERS = ("free-spoken-digit-dataset", "speech")  # of data_dir
_HOW = "get it with: git clone https://github.com/Jakobovski/free-spoken-digit-dataset, in data_dir"


def spoken_digits(
    data_dir: str,
    frames: PositiveInt,
    features: LogMel,
    val_fraction: ProperFraction,
    augment: SpecAugment,
    num_classes: PositiveInt | None = None,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None,
) -> TensorDataset:
    """Spectrograms (N, 1, frames, mels) and the digits (N).

    Raises:
        ConfigError: the number of classes or the shape is not the data's.
        DataError: the recordings are missing or damaged.
    """
    files = split_files(data_dir)
    return spectrogram_dataset(
        DIGITS,
        {name: ([path for path, _ in entries], [digit for _, digit in entries]) for name, entries in files.items()},
        frames,
        features,
        val_fraction,
        augment,
        fingerprint_sounds([path for entries in files.values() for path, _ in entries]),
        num_classes,
        input_shape,
    )


def split_files(data_dir: str) -> dict[str, list[tuple[Path, int]]]:
    """Return the recordings of `train` and `test`, each with its digit.

    Raises:
        DataError: they are missing.
    """
    folder = find_data(data_dir, "recordings", _FOLDERS, advice=_HOW, is_folder=True)
    splits: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    for path, match in list_wavs(folder, r"([0-9])_\w+?_([0-9]+)\.wav", "{digit}_{speaker}_{number}.wav"):
        splits["test" if int(match[2]) < _TESTED else "train"].append((path, int(match[1])))
    for name, entries in splits.items():
        if not entries:
            raise DataError(f"{folder}: has no {name} recordings (numbers {'0 to 4' if name == 'test' else 'from 5'})")
    return splits
