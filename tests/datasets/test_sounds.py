"""Wav files of every width, their spectrograms, random changes of these, and the data sets made of them."""

import math
import wave
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from bigmodel.datasets.audio.audio_folder import audio_folder
from bigmodel.datasets.audio.mel import LogMel, pad_or_trim
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.spoken_digits import spoken_digits
from bigmodel.datasets.audio.wav import read_wav, write_wav
from bigmodel.datasets.audio.yesno import yesno
from bigmodel.errors import ConfigError, DataError
from bigmodel.interfaces import Batch
from bigmodel.padding import lengths, valid_mask
from bigmodel.tasks.ctc import to_text

MEL = LogMel(mels=8, window=64)


def sine(hertz, rate, seconds=0.25):
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(round(rate * seconds)) / rate)


def saved(path, wave_T, rate=8000, width=2, channels=1):
    """A wav file as other programs write it: 8 bits unsigned, more signed; equal channels but for their sign."""
    scaled = (wave_T.double().numpy() * (2 ** (8 * width - 1) - 1)).round().astype(np.int64)
    columns = np.stack([scaled, *[scaled // 2] * (channels - 1)], axis=1) + (128 if width == 1 else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(columns.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes())
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_is_read_and_channels_are_averaged(tmp_path, width):
    expected = sine(440, 8000)
    mono = read_wav(saved(tmp_path / "mono.wav", expected, width=width), 8000)
    torch.testing.assert_close(mono, expected, atol=2 / 2 ** (8 * width - 1) + 1e-6, rtol=0)
    stereo = read_wav(saved(tmp_path / "stereo.wav", expected, width=width, channels=2), 8000)
    torch.testing.assert_close(stereo, 0.75 * expected, atol=2 / 2 ** (8 * width - 1) + 1e-6, rtol=0)


@pytest.mark.parametrize("rate", [16_000, 4_000, 11_025])
def test_other_rates_are_brought_to_the_one_asked_for(tmp_path, rate):
    found, expected = read_wav(saved(tmp_path / "a.wav", sine(440, rate), rate), 8000), sine(440, 8000)
    middle = slice(200, 1800)  # the ends of a cut wave ring
    torch.testing.assert_close(found[middle], expected[middle], atol=0.01, rtol=0)


def test_what_is_written_is_read_again(tmp_path):
    write_wav(tmp_path / "a.wav", torch.tensor([0.0, 0.25, -1.0, 7.0]), 8000)
    torch.testing.assert_close(read_wav(tmp_path / "a.wav", 8000), torch.tensor([0.0, 0.25, -1, 1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "gone", "silent", "float", "slow"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = saved(tmp_path / "word.wav", sine(440, 8000) if damage != "silent" else torch.zeros(0))
    good = path.read_bytes()
    content = {"empty": b"", "text": b"hello, world", "cut": good[:900], "silent": good}
    content |= {"float": good[:20] + b"\x03" + good[21:], "slow": good[:24] + bytes(4) + good[28:]}
    path.unlink() if damage == "gone" else path.write_bytes(content[damage])
    said = r"not a readable wav file \(.+\); mend or remove it"
    if damage == "text" and find_spec("soundfile") is None:  # which might know what it is
        said = "this kind of file needs soundfile"
    with pytest.raises(DataError, match=rf"word\.wav: {said}"):
        read_wav(path, 8000)


def test_a_tone_sounds_in_the_band_of_its_pitch_however_loud():
    mel = LogMel()
    middle_hz = mel.bands().argmax(0) * mel.rate / mel.window
    for band in (8, 20, 35):
        frames = mel(sine(middle_hz[band].item(), 8000))
        assert frames.shape == (2000 // mel.hop + 1, 40)
        assert (frames[5:-5].mean(0).argmax() - band).abs() <= 1
        assert (frames.mean().abs() < 1e-5, frames.std().item()) == (True, pytest.approx(1, abs=1e-3))
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mel(noise / 4), mel(noise))
    assert mel(torch.zeros(1)).isfinite().all()


def test_filling_up_is_silence():
    frames = torch.tensor([[1.0, 2.0], [-3.0, 0.0]])
    assert pad_or_trim(frames, 3).tolist() == [[1, 2], [-3, 0], [-3, -3]]
    assert pad_or_trim(frames, 1).tolist() == [[1, 2]]


def test_changes_are_a_function_of_seed_and_step_and_leave_the_filling_alone():
    inputs = torch.randn(4, 30, 6)
    inputs[1, 20:] = float("nan")
    batch = Batch(inputs, torch.zeros(4))
    masks = SpecAugment(time_masks=1, time_width=5, mel_masks=1, mel_width=2)
    first, again, other = (masks(batch, 0, step).inputs for step in (3, 3, 4))
    assert torch.equal(first.nan_to_num(9), again.nan_to_num(9))
    assert not torch.equal(first.nan_to_num(9), other.nan_to_num(9))
    assert torch.equal(valid_mask(first), valid_mask(inputs))
    hidden = (first == 0).sum((1, 2))
    assert 0 < hidden.max() <= 5 * 6 + 2 * 30
    assert torch.equal(first[first != 0].nan_to_num(9), inputs[first != 0].nan_to_num(9))
    assert torch.equal(SpecAugment()(batch, 0, 0).inputs.nan_to_num(9), inputs.nan_to_num(9))


def test_shifts_move_whole_clips():
    inputs = torch.arange(30.0)[:, None].expand(8, 1, 30, 2)
    found = SpecAugment(shift=3)(Batch(inputs, torch.zeros(8)), 0, 0).inputs
    shifts = 15 - found[:, 0, 15, 0]
    assert len(shifts.unique()) > 2
    for clip, shift in zip(found, shifts, strict=True):
        assert clip[0, :, 1].tolist() == [min(29, max(0, t - shift.item())) for t in range(30)]


def test_digits_are_split_by_their_numbers_and_make_images(tmp_path):
    for name in ("0_ann_0", "3_ann_4", "7_bob_5", "9_ann_10"):
        saved(tmp_path / "recordings" / f"{name}.wav", sine(440, 8000, 0.1))
    settings = {"frames": 12, "features": MEL, "val_fraction": 0.0, "augment": SpecAugment()}
    for place in (tmp_path, tmp_path / "recordings"):
        data = spoken_digits(str(place), **settings)
        inputs, digits = data.splits["train"]
        assert (inputs.shape, digits.tolist(), data.splits["test"][1].tolist()) == ((2, 1, 12, 8), [7, 9], [0, 3])
        assert data.properties == {"num_classes": 10, "input_shape": [1, 12, 8]}
    with pytest.raises(DataError, match=r"found no 'recordings' in .*; get it with"):
        spoken_digits(str(tmp_path / "elsewhere"), **settings)
    with pytest.raises(ConfigError) as wrong:
        spoken_digits(str(tmp_path), **settings, num_classes=9, input_shape=(1, 12, 9))
    assert str(wrong.value).splitlines() == [
        "dataset.num_classes: got 9, but the data has 10; leave it null",
        "dataset.input_shape: got [1, 12, 9], but the data has [1, 12, 8]; leave it null",
    ]
    saved(tmp_path / "recordings" / "ten_ann_0.wav", sine(440, 8000))
    with pytest.raises(DataError, match=r"ten_ann_0\.wav: its name must have the form"):
        spoken_digits(str(tmp_path), **settings)


def test_yes_and_no_are_split_as_kaldi_does_and_spelt(tmp_path):
    for number in range(33):
        name = "_".join(f"{number:08b}")
        saved(tmp_path / "waves_yesno" / f"{name}.wav", sine(440, 8000, 0.1 + 0.01 * number))
    settings = {"features": MEL, "val_fraction": 0.0, "augment": SpecAugment()}
    data = yesno(str(tmp_path), **settings)
    assert {name: len(texts) for name, (_, texts) in data.splits.items()} == {"train": 31, "test": 2}
    inputs, texts = data.splits["train"]
    assert [to_text(row, data.properties["characters"]) for row in texts[:2].tolist()] == [
        "no no no no no no no no",
        "no no no no no no no yes",
    ]
    assert lengths(inputs)[:2].tolist() == [800 // 80 + 1, 880 // 80 + 1]
    for path in sorted((tmp_path / "waves_yesno").glob("*.wav"))[:2]:
        path.unlink()
    with pytest.raises(DataError, match="holds 31 of 60 files"):
        yesno(str(tmp_path), **settings)


def test_any_sounds_in_class_folders(tmp_path):
    for name in ("train/bark/a", "train/bark/b", "train/meow/c", "test/meow/d"):
        saved(tmp_path / f"{name}.wav", sine(440, 8000, 0.1))
    settings = {"frames": 12, "features": MEL, "val_fraction": 0.0, "augment": SpecAugment()}
    data = audio_folder(str(tmp_path), **settings)
    assert data.spec["classes"] == ["bark", "meow"]
    assert {name: labels.tolist() for name, (_, labels) in data.splits.items()} == {"train": [0, 0, 1], "test": [1]}
    with pytest.raises(DataError, match="no folder"):
        audio_folder(str(tmp_path / "nowhere"), **settings)
