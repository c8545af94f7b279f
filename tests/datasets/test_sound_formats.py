"""Wav files as recorders, phones and other programs write them, and the formats that soundfile decodes."""

import builtins
import math
import struct
import sys
import time

import numpy as np
import pytest
import torch

from bigmodel.datasets.audio import coded_sounds, wav
from bigmodel.datasets.audio.audio_folder import audio_folder
from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.wav import read_header, read_sound, read_wav, resample, write_wav
from bigmodel.errors import DataError
from bigmodel.inference.processors.waves import to_wave

RATE = 8000
WAVE = (0.5 * torch.sin(2 * math.pi * 440 * torch.arange(2000) / RATE)).numpy()
GUID = b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def written(path, data, coding, bits, *, channels=1, extensible=False, valid=None, before=b"", size=None):
    """A wav file, chunk by chunk; `size` is what the header promises."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else coding, channels, RATE, RATE * frame, frame, bits)
    if extensible:
        form += struct.pack("<HHI", 22, valid or bits, 4) + struct.pack("<H", coding) + GUID
    head = chunk(b"data", data)
    if size is not None:
        head = b"data" + struct.pack("<I", size) + data
    body = b"WAVE" + before + chunk(b"fmt ", form) + head
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def pcm(bits):
    codes = (WAVE.astype(np.float64) * (2 ** (bits - 1) - 1)).round().astype("<i8")
    return codes.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("extensible", [False, True])
def test_extensible_wav_is_read_as_plain_wav_is(tmp_path, bits, extensible):
    path = written(tmp_path / "a.WAV", pcm(bits), 1, bits, extensible=extensible, valid=min(bits, 20))
    torch.testing.assert_close(read_wav(path, RATE), torch.from_numpy(WAVE), atol=2 / 2 ** (bits - 1) + 1e-6, rtol=0)


@pytest.mark.parametrize(("bits", "kind"), [(32, "<f4"), (64, "<f8")])
@pytest.mark.parametrize("extensible", [False, True])
def test_floats_are_read_as_they_are(tmp_path, bits, kind, extensible):
    path = written(tmp_path / "a.wav", (3 * WAVE).astype(kind).tobytes(), 3, bits, extensible=extensible)
    torch.testing.assert_close(read_wav(path, RATE), torch.from_numpy(3 * WAVE))
    stereo = np.stack([WAVE, -WAVE / 2], axis=1).astype(kind).tobytes()
    path = written(tmp_path / "b.wav", stereo, 3, bits, channels=2, extensible=extensible)
    torch.testing.assert_close(read_wav(path, RATE), torch.from_numpy(WAVE / 4), atol=1e-7, rtol=0)
    path = written(tmp_path / "c.wav", np.full(9, np.nan).astype(kind).tobytes(), 3, bits)
    with pytest.raises(DataError, match=r"c\.wav: not a readable wav file \(.*not finite numbers"):
        read_wav(path, RATE)


def test_other_chunks_are_passed_over_and_a_pipes_header_is_no_promise(tmp_path):
    notes = chunk(b"LIST", b"INFOodd") + chunk(b"bext", bytes(600))
    expected = read_wav(written(tmp_path / "a.wav", pcm(16), 1, 16), RATE)
    assert read_wav(written(tmp_path / "b.wav", pcm(16), 1, 16, before=notes), RATE).equal(expected)
    assert read_wav(written(tmp_path / "c.wav", pcm(16), 1, 16, size=0xFFFFFFFF), RATE).equal(expected)
    with pytest.raises(DataError, match="cut short: 4000 bytes of sound, where its header promises 4002"):
        read_wav(written(tmp_path / "d.wav", pcm(16), 1, 16, size=4002), RATE)


@pytest.mark.parametrize("ending", [".flac", ".ogg", ".mp3", ".aiff", ".OPUS"])
def test_what_soundfile_decodes(tmp_path, ending):
    soundfile = pytest.importorskip("soundfile")
    path, exact = tmp_path / f"a{ending}", ending in (".flac", ".aiff")
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) / 2
    kind = {"format": "OGG", "subtype": "OPUS"} if ending == ".OPUS" else {}
    soundfile.write(path, np.stack([tone, tone / 2], axis=1), 16000, **kind)
    sound = read_sound(path)
    assert (sound.rate, sound.channels) == (16000, 2)
    found, expected = read_wav(path, RATE)[1000:7000], torch.from_numpy(0.75 * tone[::2])[1000:7000].float()
    assert exact or (found - expected).abs().mean() < 0.3  # what MP3 and Opus delay
    if exact:
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    else:
        assert found.std().item() == pytest.approx(expected.std().item(), rel=0.1)


def test_a_wav_in_another_coding_is_decoded_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for coding in ("ULAW", "ALAW", "IMA_ADPCM"):
        path = tmp_path / f"{coding}.wav"
        soundfile.write(path, WAVE, RATE, subtype=coding)
        assert (read_wav(path, RATE)[:2000] - torch.from_numpy(WAVE)).abs().mean() < 0.02


@pytest.mark.parametrize("name", ["a.flac", "mu-law.wav"])
def test_without_soundfile_it_is_said_how_to_get_it(tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"fLaC" + bytes(100)) if name == "a.flac" else written(path, bytes(100), 7, 8)
    found = builtins.__import__

    def without(module, *rest, **more):
        if module == "soundfile":
            raise ModuleNotFoundError(module)
        return found(module, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=rf"{name}: .* needs soundfile; pip install 'bigmodel-train\[audio\]'"):
        read_wav(path, RATE)


@pytest.mark.parametrize(
    "content", [b"fLaC" + bytes(500), b"OggS" + bytes(500), b"ID3\4" + bytes(500), b"hello, world"]
)
def test_a_damaged_one_is_named(tmp_path, content):
    pytest.importorskip("soundfile")
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.flac: not a readable sound file \(.+\); mend or remove it"):
        read_wav(tmp_path / "a.flac", RATE)


def test_what_is_too_long_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "_MOST_SAMPLES", 1999)
    with pytest.raises(DataError, match=r"2000 samples in 1 channels are too many"):
        read_wav(written(tmp_path / "a.wav", pcm(16), 1, 16), RATE)
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", WAVE, RATE)
    with pytest.raises(DataError, match=r"2000 samples in 1 channels are too many"):
        read_wav(tmp_path / "a.flac", RATE)


def test_a_rate_that_is_a_prime_number_costs_no_more():
    tone = torch.sin(2 * math.pi * 440 * torch.arange(999_983) / 999_983)
    began = time.monotonic()
    found = resample(tone, 999_983, RATE)
    assert time.monotonic() - began < 2
    expected = torch.sin(2 * math.pi * 440 * torch.arange(len(found)) / RATE)
    torch.testing.assert_close(found[200:-200], expected[200:-200], atol=5e-3, rtol=0)


def test_a_folder_says_what_it_changed_of_the_sounds(tmp_path):
    for name, rate in (("low/a.wav", 8000), ("low/b.WAV", 16000), ("high/c.wav", 16000)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_wav(tmp_path / name, torch.rand(rate // 4) / 2, rate)
    mel = LogMel(mels=8, window=64)
    data = audio_folder(str(tmp_path), frames=5, features=mel, val_fraction=0.0, augment=SpecAugment())
    assert len(data.splits["train"][1]) == 3
    assert "2 sounds brought from 16000 to 8000 Hz" in data.description
    assert "3 sounds cut after 0.05 s" in data.description
    assert "averaged" not in data.description


def test_many_chunks_before_the_sound_are_refused_at_once(tmp_path):
    path = written(tmp_path / "a.wav", pcm(16), 1, 16, before=chunk(b"junk", b"") * 200_000)
    with pytest.raises(DataError, match="more than 10000 chunks"):
        read_sound(path)


def test_more_bits_than_a_sample_has_room_for_are_refused(tmp_path):
    path = written(tmp_path / "a.wav", pcm(16), 1, 16)
    content = bytearray(path.read_bytes())
    content[22:24] = (2).to_bytes(2, "little")  # two channels in frames of two bytes: 16 bits have room for 8
    path.write_bytes(content)
    with pytest.raises(DataError, match="16 bits per sample, but its header has room for 8"):
        read_sound(path)


def test_doubles_beyond_floats_are_refused_without_a_warning(tmp_path):
    path = written(tmp_path / "a.wav", np.full(100, 1e300).tobytes(), 3, 64)
    with pytest.raises(DataError, match="not finite numbers"):
        read_sound(path)


def test_a_stream_of_unknown_length_says_so(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.flac"
    soundfile.write(path, WAVE, RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # the number of samples: 36 bits, 0 where it is not known
    path.write_bytes(content)
    with pytest.raises(DataError, match="does not say how long it is"):
        read_sound(path)


@pytest.mark.parametrize("form", [np.asarray, torch.tensor])
def test_samples_in_the_other_order_are_refused(form):
    samples = np.stack([WAVE, WAVE]) if form is np.asarray else np.stack([WAVE, WAVE], axis=1)
    with pytest.raises(DataError, match="transpose them"):
        to_wave((form(samples), RATE), RATE)


@pytest.mark.parametrize("share", [0.4, 0.93])
@pytest.mark.parametrize("ending", [".flac", ".ogg", ".mp3", ".aiff", ".au", ".opus", ".wav"])
def test_a_coded_sound_that_was_cut_is_refused(tmp_path, ending, share):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000)
    kind = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".wav": {"subtype": "ULAW"}}.get(ending, {})
    soundfile.write(path, noise, 16000, **kind)
    content = path.read_bytes()
    assert len(read_sound(path).wave_T) >= 48000
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"a\{ending}: not a readable .*"):
        read_sound(path)


def bare_mp3(path, seconds, rate, mode="CONSTANT"):
    """An MP3 file without the frame that counts the others; noise after a second of silence."""
    soundfile = pytest.importorskip("soundfile")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, seconds * rate)
    noise[:rate] = 0
    soundfile.write(path, noise, rate, bitrate_mode=mode, compression_level=0.5)
    content = path.read_bytes()
    return content[coded_sounds._frame_of_mp3(content[:4])[0] :]


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_an_mp3_without_a_count_is_refused_where_its_last_frame_is_cut(tmp_path, rate):
    path = tmp_path / "a.mp3"
    bare = bare_mp3(path, 2, rate)
    path.write_bytes(b"ID3\4\0\0\0\0\0\x10" + b"\0" * 16 + bare + b"TAG" + bytes(125))
    assert len(read_sound(path).wave_T) >= 2 * rate
    path.write_bytes(bare[:-40])
    with pytest.raises(DataError, match="cut short: its last frame is not whole"):
        read_sound(path)


def test_an_mp3_whose_length_is_estimated_is_read_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(bare_mp3(path, 8, 16000, "VARIABLE"))
    assert len(read_sound(path).wave_T) >= 8 * 16000  # libsndfile takes it for three times as long
    soundfile = pytest.importorskip("soundfile")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 80000)
    noise[8000:] *= 0.001
    soundfile.write(path, noise, 8000, bitrate_mode="VARIABLE", compression_level=0.5)
    content = path.read_bytes()
    path.write_bytes(content[coded_sounds._frame_of_mp3(content[:4])[0] :])
    with pytest.raises(DataError, match=r"libsndfile reads [\d,]+ of its [\d,]+ samples; convert it to flac or wav"):
        read_sound(path)


@pytest.mark.parametrize("ending", [".ogg", ".opus", ".mp3"])
def test_damage_within_a_coded_sound_is_seen_by_what_frames_its_blocks(tmp_path, ending):
    """libsndfile leaves the damaged blocks out and returns a shorter sound, without an error."""
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000)
    soundfile.write(path, noise, 16000, **({"format": "OGG", "subtype": "OPUS"} if ending == ".opus" else {}))
    content = bytearray(path.read_bytes())
    read_header(path)
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\{ending}: not a readable sound file \((damaged at byte|cut short: )"):
        read_header(path)


def _flac_folder(root, damaged):
    soundfile = pytest.importorskip("soundfile")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
    for number in range(6):
        path = root / "ab"[number % 2] / f"{number}.flac"
        path.parent.mkdir(exist_ok=True, parents=True)
        soundfile.write(path, noise, 8000)
        if number in damaged:
            content = bytearray(path.read_bytes())
            content[2000:2050] = bytes(50)
            path.write_bytes(content)


def _open_folder(root, **more):
    return audio_folder(str(root), 12, LogMel(mels=8), 0.2, SpecAugment(0, 0, 1, 0, 1), **more)


def test_broken_sounds_are_listed_at_once_or_skipped(tmp_path):
    _flac_folder(tmp_path, {2, 5})
    skipped = _open_folder(tmp_path, broken="skip")
    assert len(skipped.splits["train"][1]) == 4
    assert "warning: 2 broken sound files skipped" in skipped.notes
    whole = _open_folder(tmp_path)  # only decoding finds damage within a block
    assert len(whole.splits["train"][1]) == 6
    assert whole.fingerprint != skipped.fingerprint
    for number in (2, 5):
        path = tmp_path / "ab"[number % 2] / f"{number}.flac"
        path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DataError) as raised:
        _open_folder(tmp_path)
    assert [line.partition(":")[0][-6:] for line in raised.value.lines[:2]] == ["2.flac", "5.flac"]
    assert "dataset.broken=skip" in raised.value.lines[2]


def test_what_is_not_installed_is_not_skipped_as_broken(tmp_path, monkeypatch):
    _flac_folder(tmp_path, ())
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r"pip install 'bigmodel-train\[audio\]'"):
        _open_folder(tmp_path, broken="skip")
