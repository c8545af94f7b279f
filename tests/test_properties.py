"""What must hold for every value, not for a chosen few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bigmodel import constraints as ranges
from bigmodel.config.signatures import type_mismatch
from bigmodel.datasets.loading.order import SampleOrder
from bigmodel.interfaces import Batch
from bigmodel.optim.groups import weight_decay_groups
from bigmodel.optim.schedules import Constant, Cosine, Linear, MultiStep, OneCycle, step_midpoint
from bigmodel.runs.metrics_repair import truncate_metrics
from bigmodel.seeds import derive

settings.register_profile("here", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("here")

sizes, batch_sizes, seeds = st.integers(1, 200), st.integers(1, 64), st.integers(0, 2**63 - 1)


@given(sizes, batch_sizes, seeds, st.integers(0, 3))
def test_every_sample_comes_once_an_epoch(size: int, batch_size: int, seed: int, epoch: int) -> None:
    order = SampleOrder(size, batch_size, seed)
    first = epoch * order.steps_per_epoch
    batches = [order.indices(step) for step in range(first, first + order.steps_per_epoch)]
    assert sorted(torch.cat(batches).tolist()) == list(range(size))
    if size > 1 and batch_size > 1:
        assert min(map(len, batches)) > 1
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(batches[-1]) <= batch_size + 1


@given(sizes, batch_sizes, seeds, st.integers(0, 500))
def test_an_order_needs_no_past(size: int, batch_size: int, seed: int, step: int) -> None:
    walked = SampleOrder(size, batch_size, seed)
    for earlier in range(max(0, step - 3), step):
        walked.indices(earlier)
    assert walked.indices(step).equal(SampleOrder(size, batch_size, seed).indices(step))


@given(st.integers(40, 200), seeds)
def test_epochs_and_seeds_differ_in_order(size: int, seed: int) -> None:
    order = SampleOrder(size, size, seed)
    assert not order.indices(0).equal(order.indices(1))
    assert not order.indices(0).equal(SampleOrder(size, size, seed ^ 1).indices(0))


@given(sizes, batch_sizes, seeds, st.integers(1, 10), st.integers(0, 50))
def test_a_limit_keeps_the_first_batches(size: int, batch_size: int, seed: int, limit: int, step: int) -> None:
    whole, limited = SampleOrder(size, batch_size, seed), SampleOrder(size, batch_size, seed, limit=limit)
    assert limited.steps_per_epoch == min(limit, whole.steps_per_epoch)
    epoch, batch = divmod(step, limited.steps_per_epoch)
    assert limited.indices(step).equal(whole.indices(epoch * whole.steps_per_epoch + batch))
    assert SampleOrder(size, batch_size, seed, only_first=True).indices(step).equal(whole.indices(0))


warmups, shares = st.floats(0, 0.9), st.floats(0, 1)
schedules = st.one_of(
    st.builds(Constant, warmups),
    st.builds(Linear, warmups, shares),
    st.builds(Cosine, warmups, shares),
    st.builds(OneCycle, warmups, shares, shares),
    st.builds(MultiStep, warmups, st.lists(shares, max_size=4), shares),
)
smooth = st.one_of(
    st.builds(Linear, st.floats(0.1, 0.9), shares),
    st.builds(Cosine, st.floats(0.1, 0.9), shares),
    st.builds(OneCycle, st.floats(0.1, 0.9), shares, shares),
)


@given(schedules, shares)
def test_a_schedule_is_a_share_of_the_rate(schedule: Constant, progress: float) -> None:
    assert -1e-12 <= schedule(progress) <= 1 + 1e-12
    assert schedule(progress) == schedule(progress)


@given(schedules, st.floats(0, 1 - 1e-6))
def test_a_schedule_jumps_at_milestones_only(schedule: Any, progress: float) -> None:
    step = 1e-6
    if any(progress < milestone <= progress + step for milestone in getattr(schedule, "milestones", ())):
        return
    steepest = math.pi / 2 / min(schedule.warmup or 1, 1 - schedule.warmup)
    assert abs(schedule(progress + step) - schedule(progress)) <= steepest * step + 1e-12


@given(st.floats(0, 0.9), shares, st.lists(shares, min_size=1, max_size=4), shares)
def test_each_milestone_multiplies_by_gamma(warmup: float, progress: float, places: list[float], gamma: float) -> None:
    passed = sum(progress >= place for place in places)
    expected = gamma**passed * Constant(warmup)(progress)
    assert MultiStep(warmup, places, gamma)(progress) == pytest.approx(expected, abs=1e-15)


@given(smooth)
def test_the_base_rate_is_reached_and_the_end_is_final(schedule: Any) -> None:
    assert schedule(schedule.warmup) == pytest.approx(1)
    assert schedule(1.0) == pytest.approx(schedule.final)


@given(st.floats(0.01, 0.9), shares)
def test_warm_up_rises_in_a_line(warmup: float, share: float) -> None:
    for schedule in (Constant(warmup), Linear(warmup), Cosine(warmup), MultiStep(warmup, milestones=())):
        assert schedule(warmup * share) == pytest.approx(share, abs=1e-9)
    one_cycle = OneCycle(warmup, initial=0.1)
    assert one_cycle(0) == pytest.approx(0.1)
    assert one_cycle(warmup * share) >= 0.1 - 1e-12


def test_steps_fall_at_their_milestones() -> None:
    schedule = MultiStep(milestones=(0.5, 0.75), gamma=0.1)
    assert [schedule(p) for p in (0, 0.49, 0.5, 0.74, 0.75, 1)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@given(st.integers(1, 10**9), st.data())
def test_midpoints_stay_inside(steps: int, data: st.DataObject) -> None:
    assert 0 < step_midpoint(data.draw(st.integers(0, steps - 1)), steps) < 1


FITS: list[tuple[Any, Any]] = [
    (3, int),
    (3, float),
    (0.5, float),
    (True, bool),
    ("a", str),
    (None, int | None),
    (3, int | None),
    ("b", Literal["a", "b"]),
    ([1, 2], Sequence[int]),
    ((1, 2), tuple[int, int]),
    ([1.0, 2], list[float]),
    ([], Sequence[int]),
    ({"a": 1}, Mapping[str, Any]),
    (1e-9, ranges.Positive),
    (0, ranges.Fraction),
    (1, ranges.Fraction),
    (0, ranges.Seed),
    (2**63 - 1, ranges.Seed),
    ("3epochs", ranges.StepsOrEpochs),
    ("0.5 epoch", ranges.StepsOrEpochs),
    ("1steps", ranges.StepsOrEpochs),
    (None, ranges.Positive | None),
    (b"", Any),
]
MISFITS: list[tuple[Any, Any, str]] = [
    (0.5, int, "whole"),
    (True, int, "whole"),
    (True, float, "number"),
    ("1", float, "number"),
    (math.nan, float, "finite"),
    (math.inf, ranges.Positive, "finite"),
    (10**400, float, "finite"),
    (1, bool, "true or false"),
    (None, int, "whole"),
    ("x", int | None, "null"),
    ("c", Literal["a", "b"], "a, b"),
    (3, Sequence[int], "list"),
    ("ab", Sequence[str], "list"),
    ([1], tuple[int, int], "2"),
    ([1, "a"], Sequence[int], "whole"),
    ([1, -1], Sequence[ranges.PositiveInt], "at least 1"),
    (3, Mapping[str, Any], "group"),
    (0, ranges.Positive, "above 0"),
    (1, ranges.ProperFraction, "below 1"),
    (-1, ranges.Seed, "at least 0"),
    (2**63, ranges.Seed, "below"),
    ("5", ranges.StepsOrEpochs, "500steps"),
    ("-1steps", ranges.StepsOrEpochs, "500steps"),
    ("1epoch\n", ranges.StepsOrEpochs, "500steps"),
    (-1, ranges.Positive | None, "null"),
]


@pytest.mark.parametrize(("value", "kind"), FITS, ids=str)
def test_what_fits(value: Any, kind: Any) -> None:
    assert type_mismatch(value, kind) is None


@pytest.mark.parametrize(("value", "kind", "said"), MISFITS, ids=lambda item: str(item)[:40])
def test_what_does_not_fit_is_told_what_would(value: Any, kind: Any, said: str) -> None:
    wish = type_mismatch(value, kind)
    assert wish is not None
    assert said in wish


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
kinds = st.sampled_from([kind for _, kind in FITS])


@given(anything, kinds)
def test_any_value_gets_an_answer(value: Any, kind: Any) -> None:
    assert type_mismatch(value, kind) is None or isinstance(type_mismatch(value, kind), str)


purposes = st.lists(st.integers(0, 10**6) | st.sampled_from(["order", "augment", "step"]), max_size=3)


@given(st.lists(st.tuples(seeds, purposes.map(tuple)), unique=True, min_size=2, max_size=20))
def test_derived_keys_are_distinct_and_fit_a_generator(keys: list[tuple[int, tuple[int | str, ...]]]) -> None:
    derived = [derive(seed, *purpose) for seed, purpose in keys]
    assert len(set(derived)) == len(derived)
    assert all(0 <= key < 2**63 for key in derived)


def test_derived_keys_are_the_same_everywhere() -> None:
    assert derive(0, "order", 0) == 3471081512423777433  # as on the day the first run was made


@given(st.integers(1, 50), st.integers(1, 60), st.booleans())
def test_pieces_hold_every_sample_in_order(size: int, count: int, named: bool) -> None:
    numbers = torch.arange(size) + 7 if named else None
    batch = Batch(torch.arange(size), torch.arange(size) * 2, numbers)
    pieces = batch.microbatches(count)
    assert 1 <= len(pieces) <= count
    told = [piece.sample_ids for piece in pieces]
    assert told == [None] * len(pieces) if numbers is None else torch.cat(told).equal(numbers)
    assert torch.cat([piece.inputs for piece in pieces]).equal(batch.inputs)
    assert torch.cat([piece.targets for piece in pieces]).equal(batch.targets)


def test_norms_and_biases_do_not_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2), nn.LayerNorm(2))
    decayed, free = weight_decay_groups(model, 0.1, decay_all=False)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert len(free["params"]) == 6
    (everything,) = weight_decay_groups(model, 0.1, decay_all=True)
    assert everything["weight_decay"] == 0.1
    assert len(everything["params"]) == 8


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    (group,) = weight_decay_groups(model, 0.1, decay_all=False)
    assert [id(p) for p in group["params"]] == [id(model.bias)]


@given(st.integers(0, 8), st.integers(0, 30))
def test_metrics_are_cut_at_the_step(step: int, torn: int) -> None:
    import json
    import tempfile
    from pathlib import Path

    lines = [json.dumps({"step": number, "split": "train"}) + "\n" for number in range(1, 7)]
    lines.append(json.dumps({"step": 2, "split": "test"}) + "\n")
    text = "".join(lines)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "metrics.jsonl"
        file.write_text(text[: len(text) - torn])
        truncate_metrics(file, step)
        kept = file.read_text().splitlines(keepends=True)
    assert text.startswith("".join(kept))
    assert all(line.endswith("\n") and json.loads(line)["step"] <= step for line in kept)
    assert len(kept) == min(step, 6, text[: len(text) - torn].count("\n"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(1, 9), seeds, st.integers(0, 3))
def test_a_balanced_epoch_has_every_class_equally_often(
    labels: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    classes = torch.tensor(labels)
    order = SampleOrder(len(labels), batch_size, seed, classes=lambda: classes)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    chosen = torch.cat([order.indices(step) for step in steps])
    assert len(chosen) == len(labels)
    counts = classes[chosen].bincount()
    counts = counts[counts > 0]
    assert len(counts) == min(len(labels), len(set(labels)))
    assert counts.max() - counts.min() <= 1
    for label in set(labels):
        times = chosen.bincount(minlength=len(labels))[classes == label]
        assert times.max() - times.min() <= 1
    again = SampleOrder(len(labels), batch_size, seed, classes=lambda: classes)
    assert again.indices(steps[-1]).equal(order.indices(steps[-1]))
