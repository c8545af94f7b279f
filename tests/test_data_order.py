"""Every sample exactly once an epoch, through the data pipeline itself: in memory and streamed, from any step on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel.augment import Augment
from bigmodel.datasets.images import Arrays, ImageDataset
from bigmodel.datasets.pipeline import ImageData

CPU = torch.device("cpu")
seeds = st.integers(0, 2**63 - 1)
fractions = st.sampled_from([0.0, 0.1, 0.34])


def _numbered(size: int) -> ImageDataset:
    """Pictures that carry their own number, as two pixels and as their label."""
    numbers = torch.arange(size)
    pixels = torch.stack([numbers // 256, numbers % 256], 1).to(torch.uint8).view(size, 1, 1, 2)
    split = Arrays(pixels, numbers)
    return ImageDataset(
        classes=["a", "b"],
        input_shape=(1, 1, 2),
        mean=(0.0,),
        std=(1 / 255,),
        val_fraction=0.0,
        augment=Augment(),
        sources={"train": lambda: split, "test": lambda: split},
        sizes={"train": size, "test": size},
        fingerprint="",
    )


def _data(size: int, batch_size: int, seed: int, fraction: float, *, streamed: bool, workers: int = 0) -> ImageData:
    dataset = _numbered(size)
    object.__setattr__(dataset, "val_fraction", fraction)
    return ImageData(
        dataset,
        device=CPU,
        batch_size=batch_size,
        seed=seed,
        resident_bytes=0 if streamed else 1e9,
        workers=workers,
    )


def _numbers(data: ImageData, first: int, last: int) -> list[list[int]]:
    """The samples of each step by label; the pixels must say the same."""
    steps = []
    for batch in data.train(first, last):
        values = batch.inputs.flatten(1).round().to(torch.int64)
        assert (values[:, 0] * 256 + values[:, 1]).equal(batch.targets)
        steps.append(batch.targets.tolist())
    return steps


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(2, 300), st.data(), seeds, fractions, st.booleans())
def test_every_sample_once_an_epoch_from_any_step(
    size: int, draw: st.DataObject, seed: int, fraction: float, streamed: bool
) -> None:
    train = size - round(size * fraction)
    batch_size = draw.draw(st.integers(1, min(train, 70)))
    data = _data(size, batch_size, seed, fraction, streamed=streamed)
    epoch = data.steps_per_epoch
    held = [n for batch in data.evaluation("val") for n in batch.targets.tolist()] if "val" in data.splits else []
    whole = _numbers(data, 0, 3 * epoch)
    assert len(whole) == 3 * epoch
    for start in range(0, 3 * epoch, epoch):
        seen = [number for step in whole[start : start + epoch] for number in step]
        assert sorted(seen + held) == list(range(size))
    first = draw.draw(st.integers(0, 3 * epoch - 1))
    last = draw.draw(st.integers(first, 3 * epoch))
    again = _data(size, batch_size, seed, fraction, streamed=not streamed)
    assert _numbers(again, first, last) == whole[first:last]


@pytest.mark.parametrize(("workers", "size", "batch_size"), [(1, 41, 10), (2, 64, 7), (2, 5, 4)])
def test_workers_change_nothing(workers: int, size: int, batch_size: int) -> None:
    resident = _data(size, batch_size, 3, 0.1, streamed=False)
    first, last = 1, 2 * resident.steps_per_epoch
    streamed = _data(size, batch_size, 3, 0.1, streamed=True, workers=workers)
    assert _numbers(streamed, first, last) == _numbers(resident, first, last)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 300), st.integers(1, 70), seeds, st.booleans())
def test_an_evaluation_takes_every_sample_once_in_order(size: int, batch_size: int, seed: int, streamed: bool) -> None:
    data = _data(size, min(batch_size, size), seed, 0.0, streamed=streamed)
    taken = [number for batch in data.evaluation("test") for number in batch.targets.tolist()]
    assert taken == list(range(size))
