"""Streamed data of every kind: the same batches to the bit as from memory, by any number of workers, or one line."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from bigmodel.datasets.audio.audio_folder import audio_folder
from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.wav import write_wav
from bigmodel.datasets.loading.on_demand import SamplesOnDemand
from bigmodel.datasets.loading.streaming import stream
from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.datasets.loading.windows import SlidingWindows
from bigmodel.datasets.text.continuous import TextDataset
from bigmodel.datasets.text.tokenizers import ByteTokenizer
from bigmodel.errors import DataError, OutOfMemoryError
from bigmodel.interfaces import Batch, Dataset, LoaderOptions
from bigmodel.padding import pad
from conftest import slow_where
from forks import finished, launch, until

CPU = torch.device("cpu")
MEL = LogMel(mels=8)


def _of(inputs, targets, **more) -> TensorDataset:
    return TensorDataset({"train": (inputs, targets), "test": (inputs, targets)}, {}, "", {}, "", 0.2, **more)


def _table(_: Path) -> TensorDataset:
    return _of(torch.randn(41, 3, generator=torch.Generator().manual_seed(0)), torch.arange(41))


def _series(_: Path) -> TensorDataset:
    values_TC = torch.arange(60.0).view(30, 2)
    return _of(SlidingWindows(values_TC, 0, 20, 4), SlidingWindows(values_TC, 4, 20, 2))


def _padded_texts(_: Path) -> TensorDataset:
    texts = [torch.arange(1 + 7 * number % 37) for number in range(41)]
    return _of(pad(texts), torch.arange(41) % 3, trim_padding=True)


def _text(_: Path) -> TextDataset:
    made = ByteTokenizer()
    return TextDataset(made.encode("to be or not to be, that is the question: " * 20), made, 7, 0.2, "")


def _sounds(folder: Path) -> TensorDataset:
    for number in range(14):
        path = folder / "train" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = 8000 if number % 3 else 11025
        wave_T = 0.5 * torch.sin(2 * math.pi * 200 * (number + 1) / rate * torch.arange(800 + 100 * number))
        write_wav(path, wave_T, rate)
    return audio_folder(str(folder), 12, MEL, 0.2, SpecAugment(shift=2, time_masks=1, mel_masks=1))


KINDS = {"table": _table, "series": _series, "padded": _padded_texts, "text": _text, "sounds": _sounds}


def _batches(dataset: Dataset, **how: object) -> list[Batch]:
    data = dataset.loader(LoaderOptions(CPU, 6, 3, **how))
    assert data.uses_workers == bool(how["workers"] and not how["resident_bytes"])
    found = list(data.train_batches(1, 2 * data.steps_per_epoch))
    return found + [batch for split in ("val", "test") if split in data.splits for batch in data.eval_batches(split)]


def _same_bits(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_resident_or_streamed_by_any_workers_batches_are_the_same_to_the_bit(kind: str, tmp_path: Path) -> None:
    resident = _batches(KINDS[kind](tmp_path), resident_bytes=1e9, workers=2)
    for workers in (0, 1, 2):
        streamed = _batches(KINDS[kind](tmp_path), resident_bytes=0, workers=workers)
        assert len(streamed) == len(resident) > 3
        for one, other in zip(resident, streamed, strict=True):
            assert all(map(_same_bits, one, other))


@pytest.mark.parametrize("kind", KINDS)
def test_from_any_step_the_batches_are_those_of_that_step(kind: str, tmp_path: Path) -> None:
    data = KINDS[kind](tmp_path).loader(LoaderOptions(CPU, 6, 3, resident_bytes=0))
    last = 2 * data.steps_per_epoch
    whole = list(data.train_batches(0, last))
    for first in (1, data.steps_per_epoch, last - 1):
        for one, other in zip(data.train_batches(first, last), whole[first:], strict=True):
            assert all(map(_same_bits, one, other))


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_says_where_the_data_lies(kind: str, tmp_path: Path) -> None:
    def said(**how: object) -> str:
        return KINDS[kind](tmp_path).loader(LoaderOptions(CPU, 6, 3, **how)).describe_placement

    assert re.fullmatch(r"in the device's memory \(.*, not above resident_gb=4\)", said(workers=2))
    assert re.fullmatch(r"streamed by 2 workers \(.*, above resident_gb=0\)", said(workers=2, resident_bytes=0))
    assert re.fullmatch(r"streamed without workers \(.*, above resident_gb=0\)", said(resident_bytes=0))


def test_sounds_are_decoded_when_they_are_needed_and_each_once(tmp_path: Path) -> None:
    dataset = _sounds(tmp_path)
    inputs, _ = dataset.splits["train"]
    assert isinstance(inputs, SamplesOnDemand)
    assert (inputs.nbytes, inputs.shape) == (14 * 12 * 8 * 4, (14, 1, 12, 8))
    dataset.loader(LoaderOptions(CPU, 6, 3, resident_bytes=0))
    dataset.sample_batch(3)
    assert "all_decoded" not in vars(inputs)
    assert inputs[torch.tensor([2, 0, 2])][0].equal(inputs[torch.tensor([2])][0])
    dataset.loader(LoaderOptions(CPU, 6, 3))
    decoded = inputs.all_decoded
    (tmp_path / "train" / "a" / "0.wav").unlink()
    assert inputs[torch.tensor([0])].equal(decoded[:1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sound_that_is_damaged_later_is_named(tmp_path: Path, workers: int) -> None:
    data = _sounds(tmp_path).loader(LoaderOptions(CPU, 6, 3, resident_bytes=0, workers=workers))
    for path in (tmp_path / "train" / "b").iterdir():
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"b/\d+\.wav: not a readable wav file \(cut short"):
        list(data.train_batches(0, data.steps_per_epoch))


def _fail(indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
    raise ZeroDivisionError("of the reader")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_of_a_reader_is_not_taken_for_a_killed_worker(workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="of the reader"):
        list(stream(_fail, [torch.arange(2)], CPU, workers))


ROWS = "x,y\n" + "".join(f"{n * 37 % 60 / 7:.3f},{n % 2}\n" for n in range(60))
TABLE = ("dataset=table", "dataset.train=rows.csv", "dataset.target=y", "model=tabular_mlp", "model.hidden=[4]")
TEXT = ("dataset=text", "dataset.path=t.txt", "dataset.tokenizer=char", "dataset.context=16", "model=gpt")
SMALL_GPT = ("task=language_modelling", "model.layers=1", "model.heads=1", "model.width=8")
SOUNDS = ("dataset=audio_folder", "dataset.root=sounds", "dataset.frames=12", "model=cnn", "model.hidden=4")
RUNS = {"table": TABLE, "text": (*TEXT, *SMALL_GPT), "sounds": SOUNDS}
SLOW = """
import time
from bigmodel.datasets.loading import streaming
read = streaming._ReadInWorker.__getitem__
streaming._ReadInWorker.__getitem__ = lambda *rest: (time.sleep(0.1), read(*rest))[1]
from bigmodel.optim.sgd import sgd
"""


class _NotHandedOver:
    """Stands for a tensor that the worker's queue cannot send, as without a thread or descriptor for it."""

    def share_memory_(self) -> None: ...

    def __reduce__(self) -> object:
        raise RuntimeError("can't start new thread")


def _read_not_handed_over(_: torch.Tensor) -> tuple:
    return (_NotHandedOver(),)


def test_a_batch_that_a_worker_cannot_hand_over_is_not_waited_for() -> None:
    with pytest.raises(OutOfMemoryError, match="workers=0"):
        next(stream(_read_not_handed_over, [torch.arange(2)], CPU, 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_where(RUNS, lambda kind: kind != "sounds"))
def test_a_killed_worker_ends_a_run_of_any_data_in_a_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question: " * 40)
    (tmp_path / "slow_pkg.py").write_text(SLOW)
    _sounds(tmp_path / "sounds")
    words = (*RUNS[kind], "device=cpu", "device.threads=1", "batch_size=2", "epochs=50", "resident_gb=0", "workers=2")
    slow = ("optim=sgd", "optim._target_=slow_pkg.sgd", "trust=[slow_pkg]", "listeners=[]", "log_every=1steps")
    process = launch(*words, *slow, cwd=tmp_path, output=tmp_path / "said")

    def workers() -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    def busy() -> bool:
        logs = [file.read_text() for file in tmp_path.glob("outputs/*/*/metrics.jsonl")]
        return any(logs) and len(workers()) >= 2

    assert until(busy, process), (tmp_path / "said").read_text()
    time.sleep(0.1)
    os.kill(workers()[0], signal.SIGKILL)
    assert finished(process, 10) == 6, (tmp_path / "said").read_text()
    errors = [line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert re.match(r"error: a data worker was killed, .*; set workers=0 or lower it", errors[0])
