"""Each random change does what its name says, to the pixel, and draws its own numbers from (seed, step) alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigmodel.datasets.images import augmentations
from bigmodel.datasets.images.augment import ImageAugment

ALL = ImageAugment("alternating", 2, "reflect", colour=0.7, cutout=3, mixup=0.4, cutmix=1.0)
EACH: dict[str, ImageAugment] = {
    "flip": ImageAugment(flip=True),
    "alternating": ImageAugment(flip="alternating"),
    "crop": ImageAugment(crop=2),
    "colour": ImageAugment(colour=0.5),
    "cutout": ImageAugment(cutout=3),
    "mixup": ImageAugment(mixup=0.3),
    "cutmix": ImageAugment(cutmix=1.0),
    "random_resized_crop": ImageAugment(random_resized_crop=0.3),
}
IMAGE = torch.arange(1, 193, dtype=torch.uint8).view(1, 3, 8, 8)
seeds = st.integers(0, 2**63 - 1)
sides = st.integers(1, 9)
memory_formats = [torch.contiguous_format, torch.channels_last]


def _changed(augment: ImageAugment, pixels: Tensor, seed: int, step: int, *, epoch: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets, as a pipeline makes them, but for normalisation; the labels are 0, 1, 2, 0, 1 ..."""
    count = len(pixels)
    changed = augment.augment_pixels(pixels, seed, step, epoch, torch.arange(count))
    assert changed.dtype == torch.uint8
    return augment.augment_inputs(changed.float(), torch.arange(count) % 3, 3, seed, step)


def _random(count: int = 6, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), sides, sides, st.data(), seeds)
def test_it_is_a_function_of_seed_and_step(
    count: int, depth: int, height: int, width: int, draw: st.DataObject, seed: int
) -> None:
    pixels = _random(count, depth, height, width)
    before = pixels.clone()
    augment = replace(ALL, crop=draw.draw(st.integers(0, min(height, width) - 1)), flip=draw.draw(st.booleans()))
    inputs, targets = _changed(augment, pixels, seed, 5)
    torch.rand(3)
    again, same = _changed(augment, pixels, seed, 5)
    assert inputs.equal(again)
    assert targets.equal(same)
    assert inputs.shape == pixels.shape
    assert pixels.equal(before)


@pytest.mark.parametrize("name", EACH)
def test_it_differs_by_step_seed_and_image(name: str) -> None:
    pixels = IMAGE.expand(64, 3, 8, 8).contiguous() if name not in ("mixup", "cutmix") else _random(64)
    changed, _ = _changed(EACH[name], pixels, 0, 0)
    assert changed.equal(_changed(EACH[name], pixels, 0, 1)[0]) == (name == "alternating")
    assert not changed.equal(_changed(EACH[name], pixels, 1, 0)[0])
    assert len(changed.flatten(1).unique(dim=0)) > 1
    assert not changed.equal(pixels.float())


@pytest.mark.parametrize("name", EACH)
def test_one_draws_the_same_whatever_else_is_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the functions: masks, and generators and weights by their next numbers."""
    drawn: dict[str, list[Any]] = {}
    for function in ("flip", "crop", "random_resized_crop", "colour", "cutout", "mixup", "cutmix"):

        def noting(images: Tensor, *rest: Any, function: str = function) -> Any:
            numbers = [x for x in rest if isinstance(x, float)]
            numbers += [x.tolist() for x in rest if isinstance(x, Tensor) and x.dtype == torch.bool]
            numbers += [torch.rand(3, generator=x).tolist() for x in rest if isinstance(x, torch.Generator)]
            drawn.setdefault(function, []).append(numbers)
            return (images, rest[0]) if function in ("mixup", "cutmix") else images

        monkeypatch.setattr(augmentations, function, noting)
    function = "flip" if name == "alternating" else name
    on = {key: value for key, value in vars(EACH[name]).items() if value != getattr(ImageAugment(), key)}
    for step in range(20):
        _changed(EACH[name], _random(), 3, step)
    alone = drawn.pop(function)
    for step in range(20):
        _changed(replace(ALL, **on), _random(), 3, step)
    together = drawn.pop(function)
    assert [numbers for numbers in alone if numbers in together] == together
    assert len(together) == 20 or (name in ("mixup", "cutmix") and 3 < len(together) < 17)
    first = {function: calls[0] for function, calls in drawn.items()}
    assert len({str(numbers) for numbers in first.values()}) == len(first)


def test_a_flip_mirrors_about_half() -> None:
    flipped, _ = _changed(ImageAugment(flip=True), IMAGE.expand(400, 3, 8, 8), 0, 0)
    mirrored = [one.equal(IMAGE[0].flip(-1).float()) for one in flipped]
    assert all(done or one.equal(IMAGE[0].float()) for done, one in zip(mirrored, flipped, strict=True))
    assert 150 < sum(mirrored) < 250


@given(seeds, st.integers(0, 1000))
def test_alternating_shows_each_image_both_ways_in_two_epochs(seed: int, epoch: int) -> None:
    augment, samples = ImageAugment(flip="alternating"), torch.randperm(400)[:200]
    pixels = IMAGE[:, :, :1].expand(200, 3, 1, 8)
    shown = [augment.augment_pixels(pixels, seed, step, e, samples) for step, e in ((3, epoch), (9, epoch + 1))]
    flipped = [(images != pixels).flatten(1).any(1) for images in shown]
    assert (flipped[0] ^ flipped[1]).all()
    assert 50 < flipped[0].sum() < 150
    again = augment.augment_pixels(pixels, seed, 77, epoch + 2, samples.flip(0))
    assert again.equal(shown[0].flip(0))  # it goes by the sample, not by its place in the batch


def test_coins_are_fair_and_differ_by_key() -> None:
    samples = torch.arange(100_000)
    for key in (0, 1, 2**63 - 1):
        coins = augmentations.hash_coin_flips(samples, key)
        assert abs(coins.float().mean() - 0.5) < 0.01
        assert abs((coins ^ augmentations.hash_coin_flips(samples, key - 1 if key else 5)).float().mean() - 0.5) < 0.01
        assert abs((coins[1:] ^ coins[:-1]).float().mean() - 0.5) < 0.01


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), sides, sides, st.booleans(), st.booleans(), st.data(), seeds)
def test_a_crop_is_a_window_of_the_padded_image(
    count: int, depth: int, height: int, width: int, mirrored: bool, last: bool, draw: st.DataObject, seed: int
) -> None:
    pad = draw.draw(st.integers(1, min(height, width) - 1 if mirrored else 4)) if min(height, width) > 1 else 0
    pixels = _random(count, depth, height, width).contiguous(memory_format=memory_formats[last])
    generator = torch.Generator().manual_seed(seed)
    cut = augmentations.crop(pixels, pad, "reflect" if mirrored else "zero", generator)
    tops, lefts = torch.randint(2 * pad + 1, (2, count), generator=generator.manual_seed(seed)).tolist()
    padded = F.pad(pixels.float(), (pad,) * 4, mode="reflect" if mirrored else "constant").to(torch.uint8)
    for one, whole, top, left in zip(cut, padded, tops, lefts, strict=True):
        assert one.equal(whole[:, top : top + height, left : left + width])


@pytest.mark.parametrize("name", [*EACH, "all"])
def test_the_memory_format_changes_no_value(name: str) -> None:
    augment = EACH.get(name, ALL)
    plain, targets = _changed(augment, _random(), 0, 1)
    last, same = _changed(augment, _random().contiguous(memory_format=torch.channels_last), 0, 1)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert plain.is_contiguous()
    assert last.allclose(plain, rtol=0, atol=0 if augment.colour == 0 else 1)  # a sum in another order may round
    assert same.equal(targets)


@pytest.mark.parametrize(("size", "height", "width"), [(1, 5, 7), (3, 8, 8), (4, 8, 9), (8, 8, 8)])
def test_cutout_hides_a_square_cut_at_the_border(size: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = augmentations.cutout(torch.ones(500, 2, height, width), size, generator)
    seen = set()
    for one in inputs:
        assert one[0].equal(one[1])
        rows, columns = (one[0] == 0).any(1).nonzero(), (one[0] == 0).any(0).nonzero()
        assert (one[0] == 0).sum() == len(rows) * len(columns)
        for places, length in ((rows, height), (columns, width)):
            first, last = int(places.min()), int(places.max())
            assert last - first + 1 == len(places)
            assert len(places) == size or first == 0 or last == length - 1
        seen.add((int(rows.max()), int(columns.max())))
    assert (inputs == 0).flatten(1).sum(1).max() == 2 * size**2
    assert len(seen) > min(40, height * width // 3)


@given(st.integers(1, 7), st.integers(2, 5), st.floats(0, 1))
def test_mixup_is_convex(count: int, classes: int, weight: float) -> None:
    inputs, soft_targets = _random(count).float(), F.one_hot(torch.arange(count) % classes, classes).float()
    mixed, targets = augmentations.mixup(inputs, soft_targets, weight)
    for number in range(count):
        expected = weight * inputs[number] + (1 - weight) * inputs[number - 1]
        assert mixed[number].allclose(expected, rtol=1e-4, atol=1e-2)
        assert targets[number].allclose(
            weight * soft_targets[number] + (1 - weight) * soft_targets[number - 1], atol=1e-5
        )
    assert targets.sum(1).allclose(torch.ones(count))


def test_cutmix_tells_the_area_it_takes() -> None:
    augment = ImageAugment(cutmix=1.0)
    areas = []
    for step in range(200):
        inputs = torch.arange(6.0)[:, None, None, None].expand(6, 3, 8, 8).clone()
        mixed, targets = augment.augment_inputs(inputs, torch.arange(6), 6, 0, step)
        other = (mixed != torch.arange(6.0)[:, None, None, None])[:, 0]
        share = other.flatten(1).float().mean(1)
        for number in range(6):
            assert set(mixed[number].unique().tolist()) <= {float(number), float((number - 1) % 6)}
            assert targets[number, number - 1] == pytest.approx(float(share[number]), abs=1e-6)
        assert other.any(2).sum(1).unique().numel() == 1
        assert targets.sum(1).allclose(torch.ones(6))
        areas.append(float(share[0]))
    assert 0.2 < sum(areas) / len(areas) < 0.5  # half, less what the border cuts off
    assert max(areas) > 0.7


def test_mixed_weights_follow_their_distribution() -> None:
    weights = []
    for step in range(1000):
        _, targets = ImageAugment(mixup=0.2).augment_inputs(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), 2, 0, step)
        weights.append(float(targets[0, 0]))
    mean = sum(weights) / 1000
    deviation = math.sqrt(sum((weight - mean) ** 2 for weight in weights) / 1000)
    assert mean == pytest.approx(0.5, abs=0.05)
    assert deviation == pytest.approx(math.sqrt(1 / (4 * (2 * 0.2 + 1))), abs=0.03)


def test_colour_draws_for_each_image_and_knows_no_strength_without_change() -> None:
    pixels = _random(1).expand(300, 3, 8, 8).contiguous()
    assert augmentations.colour(pixels, 1e-9, torch.Generator().manual_seed(0)).equal(pixels)
    strong = augmentations.colour(pixels, 1.0, torch.Generator().manual_seed(0))
    assert strong.dtype == torch.uint8
    assert len(strong.flatten(1).unique(dim=0)) > 290
    means = [augmentations.colour(pixels, s, torch.Generator().manual_seed(0)).float() for s in (0.1, 0.3, 1.0)]
    spread = [float(images.mean((1, 2, 3)).std()) for images in means]
    assert spread[0] < spread[1] < spread[2]
    levels = torch.tensor([len(one.unique()) for one in strong])
    assert (levels <= 16).any()  # posterised to four bits


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_is_what_its_description_says_of_each_image(channels: int) -> None:
    count, generator = 60, torch.Generator().manual_seed(0)
    changed = augmentations.colour(_random(count, channels), 0.8, generator)
    generator.manual_seed(0)
    factors = 1 + 0.8 * (2 * torch.rand((3, count), generator=generator) - 1)
    posterised, solarised = torch.rand((2, count), generator=generator) < 0.2
    dropped = torch.randint(1, 5, (count,), generator=generator)
    threshold = torch.randint(128, 256, (count,), generator=generator)
    assert 3 < posterised.sum() < 25
    assert 3 < solarised.sum() < 25
    for number, image in enumerate(_random(count, channels).double()):
        image = image * factors[0, number]
        image = image.mean() + (image - image.mean()) * factors[1, number]
        if channels > 1:
            image = image.mean(0) + (image - image.mean(0)) * factors[2, number]
        image = image.round().clamp(0, 255)
        if posterised[number]:
            image = image // 2 ** dropped[number] * 2 ** dropped[number]
        if solarised[number]:
            image = torch.where(image > threshold[number], 255 - image, image)
        different = (changed[number] != image).sum()
        assert different <= 1, number  # where rounding is at a tie


@pytest.mark.parametrize(
    ("augment", "shape", "classes", "wrong"),
    [
        (ImageAugment(crop=8), (1, 8, 9), 2, ["crop"]),
        (ImageAugment(crop=7, padding="reflect"), (1, 8, 8), 2, []),
        (ImageAugment(cutout=9), (3, 9, 8), 2, ["cutout"]),
        (ImageAugment(cutout=8), (3, 9, 8), 2, []),
        (ImageAugment(mixup=0.1, cutmix=0.1), (1, 8, 8), 1, ["mixup", "cutmix"]),
    ],
)
def test_what_does_not_fit_the_images_is_named(
    augment: ImageAugment, shape: tuple[int, ...], classes: int, wrong: list[str]
) -> None:
    assert [line.partition(":")[0] for line in augment.problems(shape, classes)] == wrong


@pytest.mark.parametrize("memory_format", memory_formats)
def test_a_resized_part_keeps_its_values_and_its_memory_format(memory_format: torch.memory_format) -> None:
    pixels = _random(64, 3, 12, 10).contiguous(memory_format=memory_format)
    generator = torch.Generator().manual_seed(0)
    changed = augmentations.random_resized_crop(pixels, 0.3, generator)
    assert (changed.shape, changed.dtype) == (pixels.shape, torch.uint8)
    assert changed.is_contiguous(memory_format=memory_format)
    assert not changed.equal(pixels)
    assert int(changed.min()) >= int(pixels.min())
    assert int(changed.max()) <= int(pixels.max())


def test_a_resized_part_is_of_the_shares_and_places_that_were_asked_for() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(400, 1, 100, 100).contiguous()  # a column says where it was
    changed = augmentations.random_resized_crop(ramp, 0.25, torch.Generator().manual_seed(0)).float()
    widths = (changed[:, 0, 0, -1] - changed[:, 0, 0, 0] + 1) / 100
    assert 0.42 < widths.min() < 0.5
    assert widths.max() > 0.98
    assert changed[:, 0, 0, 0].min() == 0
    assert changed[:, 0, 0, -1].max() == 99
    assert augmentations.random_resized_crop(ramp, 1.0, torch.Generator().manual_seed(0)).shape == ramp.shape
