"""The yesno corpus of Kaldi (openslr.org/1): a man says eight times yes or no in Hebrew, 60 files at 8 kHz.

Kaldi's recipe takes the first 31 names in alphabetical order for training and the last 29 for testing. So all training
files begin with a no and all test files with a yes: a model that learns by heart how a file begins is found out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.sound_files import fingerprint_sounds, list_wavs
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.wav import read_wav
from bigmodel.datasets.files.locations import find_data
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.errors import DataError
from bigmodel.padding import pad

_TRAINING = 31
_WORDS = {"0": "no", "1": "yes"}
_HOW = "get it from http://www.openslr.org/resources/1/waves_yesno.tar.gz and unpack it in data_dir"


def yesno(
    data_dir: str,
    features: LogMel,
    val_fraction: ProperFraction,
    augment: SpecAugment,
    num_classes: PositiveInt | None = None,
    input_shape: tuple[PositiveInt, PositiveInt] | None = None,
    characters: str | None = None,
) -> TensorDataset:
    """Spectrograms (N, T, mels), filled up with NaN, and their texts (N, U), filled up with -1: class numbers, of which
    1 is the first of the characters and 0 CTC's blank.

    Raises:
        ConfigError: the number of classes, the shape or the characters are not the data's.
        DataError: the files are missing or damaged.
    """
    folder = find_data(data_dir, "waves_yesno", ["speech"], advice=_HOW, is_folder=True)
    found = list_wavs(folder, r"([01](?:_[01]){7})\.wav", "1_0_0_1_1_1_0_1.wav, 1 for yes and 0 for no")
    if len(found) <= _TRAINING:
        raise DataError(f"{folder}: holds {len(found)} of 60 files; {_HOW}")
    texts = [" ".join(_WORDS[digit] for digit in match[1].split("_")) for _, match in found]
    alphabet = "".join(sorted(set("".join(_WORDS.values())) | {" "}))
    inputs_NTM = pad([features(read_wav(path, features.rate)) for path, _ in found])
    targets_NU = pad([encode_characters(text, alphabet) for text in texts])
    properties = {
        "num_classes": 1 + len(alphabet),
        "input_shape": list(inputs_NTM.shape[1:]),
        "characters": alphabet,
    }
    check_claims({"num_classes": num_classes, "input_shape": input_shape, "characters": characters}, properties)
    return TensorDataset(
        splits={
            "train": (inputs_NTM[:_TRAINING], targets_NU[:_TRAINING]),
            "test": (inputs_NTM[_TRAINING:], targets_NU[_TRAINING:]),
        },
        properties=properties,
        description=f"texts of up to {targets_NU.shape[1]} characters, up to {inputs_NTM.shape[1]} frames",
        spec={
            "kind": "bigmodel.inference.processors.speech.SpeechRecognitionProcessor",
            "characters": alphabet,
            "features": features.node(),
        },
        fingerprint=fingerprint_sounds([path for path, _ in found]),
        val_fraction=val_fraction,
        augment=augment,
        files={
            "train": [str(path) for path, _ in found[:_TRAINING]],
            "test": [str(path) for path, _ in found[_TRAINING:]],
        },
    )


def encode_characters(text: str, characters: str) -> Tensor:
    """Encode a text as class indices of its characters, counted from 1: int64 (U,)."""
    return torch.tensor([1 + characters.index(character) for character in text])
