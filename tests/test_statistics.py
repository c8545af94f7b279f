"""Student's t without scipy: against printed tables, against its own density, and by what must hold of any values."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bigmodel.runs.comparison.significance import (
    holm_correction,
    paired_t_test,
    summarize,
    t_quantile,
    t_two_sided_p,
    welch_t_test,
)

values = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 4))
samples = st.lists(values, min_size=2, max_size=8)
quick = settings(max_examples=60, deadline=None)

TABLE = [  # two-sided 95 % and 99 %, as tables print them
    (1, 12.706, 63.657),
    (2, 4.303, 9.925),
    (3, 3.182, 5.841),
    (4, 2.776, 4.604),
    (5, 2.571, 4.032),
    (9, 2.262, 3.250),
    (10, 2.228, 3.169),
    (30, 2.042, 2.750),
    (120, 1.980, 2.617),
    (1_000_000, 1.960, 2.576),
]


@pytest.mark.parametrize(("freedom", "at_95", "at_99"), TABLE)
def test_quantiles_are_those_of_the_tables(freedom: int, at_95: float, at_99: float) -> None:
    assert t_quantile(freedom) == pytest.approx(at_95, abs=6e-4)
    assert t_quantile(freedom, 0.99) == pytest.approx(at_99, abs=6e-4)


@pytest.mark.parametrize("t", [1e-9, 1e-3, 0.4, 1.0, 3.0, 50.0, 1e6])
def test_the_tail_is_the_closed_form_where_there_is_one(t: float) -> None:
    assert t_two_sided_p(t, 1) == pytest.approx(
        1 - 2 / math.pi * math.atan(t) if t < 10 else 2 / math.pi * math.atan(1 / t)
    )
    assert t_two_sided_p(t, 2) == pytest.approx(2 / (2 + t * t) / (1 + t / math.sqrt(2 + t * t)), rel=1e-9)
    assert t_two_sided_p(-t, 2) == t_two_sided_p(t, 2)


def test_the_tail_is_the_integral_of_the_density_for_broken_freedom() -> None:
    freedom, t, steps = 3.7, 1.9, 20_000
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    middles = ((i + 0.5) * t / steps for i in range(steps))
    inside = 2 * scale * t / steps * math.fsum((1 + x * x / freedom) ** (-(freedom + 1) / 2) for x in middles)
    assert t_two_sided_p(t, freedom) == pytest.approx(1 - inside, rel=1e-8)


@quick
@given(st.floats(1, 1e5), st.floats(0.5, 0.999))
def test_the_quantile_inverts_the_tail(freedom: float, confidence: float) -> None:
    assert t_two_sided_p(t_quantile(freedom, confidence), freedom) == pytest.approx(1 - confidence, rel=1e-8)


def test_a_summary_worked_by_hand() -> None:
    of = summarize([2, 4, 4, 4, 5, 5, 7, 9])
    assert (of.n, of.mean) == (8, 5)
    assert of.std == pytest.approx(math.sqrt(32 / 7))
    assert of.high == pytest.approx(5 + 2.3646243 * math.sqrt(32 / 7 / 8))
    assert summarize([0.25]).std is None


@quick
@given(samples, st.floats(-100, 100).map(round), st.sampled_from([0.5, 1.0, 4.0]))
def test_a_summary_moves_and_stretches_with_its_values(sample: list[float], shift: int, scale: float) -> None:
    of, moved = summarize(sample), summarize([shift + scale * value for value in sample])
    for before, after in ((of.mean, moved.mean), (of.low, moved.low), (of.high, moved.high)):
        assert before is not None
        assert after == pytest.approx(shift + scale * before, rel=1e-6, abs=1e-6)


@quick
@given(samples, samples)
def test_welch_does_not_care_which_comes_first(first: list[float], second: list[float]) -> None:
    one, other = welch_t_test(first, second), welch_t_test(second, first)
    assert one.p == other.p
    assert (one.low, one.high) == (-other.high, -other.low)


@quick
@given(samples, samples)
def test_the_interval_holds_0_where_p_is_above_5_percent(first: list[float], second: list[float]) -> None:
    for found in (welch_t_test(first, second), paired_t_test(first[:2], second[:2])):
        if found.p is not None and abs(found.p - 0.05) > 1e-6:
            assert (found.low <= 0 <= found.high) == (found.p > 0.05)


def test_welch_of_equal_spreads_is_students_own() -> None:
    found = welch_t_test([1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0])  # variance 5/3 each: t = -2 / sqrt(2 * 5/12), df 6
    assert found.freedom == pytest.approx(6)
    assert found.p == pytest.approx(t_two_sided_p(2 / math.sqrt(5 / 6), 6))
    assert 0.05 < found.p < 0.1


@quick
@given(samples)
def test_pairing_cancels_what_both_share(shared: list[float]) -> None:
    assume(max(shared) - min(shared) > 1)
    gains = [0.5 + 0.1 * (i % 2) for i in range(len(shared))]
    second = [value + gain for value, gain in zip(shared, gains, strict=True)]
    found = paired_t_test(second, shared)
    assert found.n == len(shared)
    assert found.mean == pytest.approx(math.fsum(gains) / len(gains))
    assert found.p is not None
    assert found.p < 0.1


def test_without_any_spread_there_is_no_test() -> None:
    assert welch_t_test([0.1 + 0.2, 0.3], [0.3, 0.3]).p == 1
    assert welch_t_test([0.3, 0.3], [0.4, 0.4]).p is None
    assert paired_t_test([0.1, 0.2], [0.2, 0.3]).p is None


def test_holm_worked_by_hand() -> None:
    assert holm_correction([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm_correction([]) == []


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_raises_and_keeps_the_order(p_values: list[float]) -> None:
    raised = holm_correction(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, raised, strict=True))
    assert min(raised) == pytest.approx(min(1, min(p_values) * len(p_values)))
    pairs = sorted(zip(p_values, raised, strict=True))
    assert [after for _, after in pairs] == sorted(raised)
