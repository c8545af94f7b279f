"""Every sample exactly once an epoch, through the data pipeline itself: in memory and streamed, from any step on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.loader import ImageLoader
from bigmodel.datasets.images.source import InMemoryImages
from bigmodel.interfaces import Batch, LoaderOptions

CPU = torch.device("cpu")
seeds = st.integers(0, 2**63 - 1)
fractions = st.sampled_from([0.0, 0.1, 0.34])


def _numbered(size: int) -> ImageDataset:
    """Pictures that carry their own number, as two pixels and as their label."""
    numbers = torch.arange(size)
    pixels = torch.stack([numbers // 256, numbers % 256], 1).to(torch.uint8).view(size, 1, 1, 2)
    split = InMemoryImages(pixels, numbers)
    return ImageDataset(
        classes=["a", "b"],
        input_shape=(1, 1, 2),
        mean=(0.0,),
        std=(1 / 255,),
        val_fraction=0.0,
        augment=ImageAugment(),
        sources={"train": lambda: split, "test": lambda: split},
        sizes={"train": size, "test": size},
        fingerprint="",
    )


def _data(size: int, batch_size: int, seed: int, fraction: float, *, streamed: bool, workers: int = 0) -> ImageLoader:
    dataset = _numbered(size)
    object.__setattr__(dataset, "val_fraction", fraction)
    how = LoaderOptions(CPU, batch_size, seed, resident_bytes=0 if streamed else 1e9, workers=workers)
    return ImageLoader(dataset, how)


def _numbers(data: ImageLoader, first: int, last: int) -> list[list[int]]:
    """The samples of each step by label; the pixels must say the same."""
    steps = []
    for batch in data.train_batches(first, last):
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
    held = [n for batch in data.eval_batches("val") for n in batch.targets.tolist()] if "val" in data.splits else []
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


EVERYTHING = ImageAugment("alternating", 2, "reflect", colour=0.7, cutout=3, mixup=0.4, cutmix=1.0)


def _colourful(*, streamed: bool, workers: int = 0, channels_last: bool = False) -> ImageLoader:
    generator = torch.Generator().manual_seed(0)
    split = InMemoryImages(
        torch.randint(256, (41, 3, 8, 6), dtype=torch.uint8, generator=generator), torch.arange(41) % 5
    )
    dataset = replace(
        _numbered(41),
        classes=list("abcde"),
        input_shape=(3, 8, 6),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        val_fraction=0.2,
        augment=EVERYTHING,
        sources={"train": lambda: split},
        sizes={"train": 41},
    )
    resident_bytes = 0 if streamed else 1e9
    data = ImageLoader(dataset, LoaderOptions(CPU, 10, 3, resident_bytes, workers))
    data.memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return data


def _same(left: Batch, right: Batch) -> bool:
    assert left.sample_ids is not None
    assert right.sample_ids is not None
    return all(a.equal(b) for a, b in zip(left, right, strict=True) if a is not None and b is not None)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_augmentation_is_the_same_to_the_bit_streamed_by_any_workers(workers: int, channels_last: bool) -> None:
    resident = list(_colourful(streamed=False, channels_last=channels_last).train_batches(0, 9))
    streamed = list(_colourful(streamed=True, workers=workers, channels_last=channels_last).train_batches(0, 9))
    assert len(resident) == len(streamed) == 9
    assert all(map(_same, resident, streamed))
    (later, *_) = _colourful(streamed=True, workers=workers, channels_last=channels_last).train_batches(6, 9)
    assert _same(later, resident[6])


@pytest.mark.parametrize("streamed", [False, True])
def test_channels_last_changes_where_values_lie_and_none_of_them(streamed: bool) -> None:
    plain, last = (_colourful(streamed=streamed, channels_last=layout) for layout in (False, True))
    for one, other in zip(plain.train_batches(0, 4), last.train_batches(0, 4), strict=True):
        assert one.inputs.is_contiguous()
        assert other.inputs.is_contiguous(memory_format=torch.channels_last)
        assert one.inputs.allclose(other.inputs, atol=0.03)  # colour rounds a sum that is added in another order
        assert one.targets.equal(other.targets)
    for one, other in zip(plain.eval_batches("val"), last.eval_batches("val"), strict=True):
        assert other.inputs.is_contiguous(memory_format=torch.channels_last)
        assert one.inputs.equal(other.inputs)


def test_a_memory_format_that_is_set_late_holds_from_the_next_batch() -> None:
    data = _colourful(streamed=False)
    (early,) = data.train_batches(0, 1)
    data.memory_format = torch.channels_last
    (late,) = data.train_batches(0, 1)
    assert early.inputs.is_contiguous()
    assert late.inputs.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_names_its_samples() -> None:
    resident = _data(41, 10, 3, 0.1, streamed=False)
    for batch in resident.train_batches(0, 8):
        assert batch.sample_ids is not None
        assert batch.sample_ids.equal(batch.targets)
    assert all(batch.sample_ids is None for batch in resident.eval_batches("val"))


def test_alternating_flips_alternate_by_the_epoch() -> None:
    split = InMemoryImages(torch.arange(12, dtype=torch.uint8).view(6, 1, 1, 2) + 1, torch.arange(6))
    dataset = replace(_numbered(6), augment=ImageAugment(flip="alternating"), sources={"train": lambda: split})
    data = ImageLoader(dataset, LoaderOptions(CPU, batch_size=2, seed=0))
    flipped = [{} for _ in range(4)]
    for step, batch in enumerate(data.train_batches(0, 12)):
        for label, (left, right) in zip(batch.targets.tolist(), batch.inputs.flatten(1).tolist(), strict=True):
            flipped[step // 3][label] = left > right
    assert flipped[0] == flipped[2] == {label: not done for label, done in flipped[1].items()}
    assert flipped[1] == flipped[3]
    assert 0 < sum(flipped[0].values()) < 6


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 300), st.integers(1, 70), seeds, st.booleans())
def test_an_evaluation_takes_every_sample_once_in_order(size: int, batch_size: int, seed: int, streamed: bool) -> None:
    data = _data(size, min(batch_size, size), seed, 0.0, streamed=streamed)
    taken = [number for batch in data.eval_batches("test") for number in batch.targets.tolist()]
    assert taken == list(range(size))
