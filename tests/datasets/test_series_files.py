"""Series as instruments write them: gaps in time, missing values, sentinels, commas, days first, no header."""

from __future__ import annotations

import json
import math
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.datasets.tables.series import series
from bigmodel.errors import ConfigError, DataError
from bigmodel.inference.processors.series import ForecastProcessor

AIR = {"separator": ";", "decimal": ",", "time": ["Date", "Time"], "time_format": "%d/%m/%Y %H.%M.%S"}


def opened(folder: Path, rows: list[str], **settings: Any) -> TensorDataset:
    (folder / "load.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    form = {"window": 4, "horizon": 2, "season": 2, "split": (0.5, 0.2, 0.3), "columns": None, "time": None}
    return series(**{"root": str(folder), "file": "load.csv", "missing": ["", "NA"]} | form | settings)


def air(hours: int = 120, without: range = range(40, 43)) -> list[str]:
    """As UCI's Air Quality: semicolons, decimal commas, days first, -200 for none, empty columns and rows."""
    rows = ["Date;Time;CO(GT);NOx(GT);;"]
    for hour in range(hours):
        if hour not in without:
            co = "-200" if hour % 50 == 20 else f"{hour / 10:.1f}".replace(".", ",")
            rows.append(f"{10 + hour // 24:02d}/03/2004;{hour % 24:02d}.00.00;{co};{1000 + hour};;")
    return [*rows, ";;;;;", ";;;;;"]


def starts(data: TensorDataset, name: str) -> list[int]:
    """The hours that the windows of a split begin at, by the series NOx(GT)."""
    inputs, _ = data.splits[name]
    mean, std = data.spec["mean"][-1], data.spec["std"][-1]
    return [round(value) - 1000 for value in (inputs[torch.arange(len(inputs))][:, 0, -1] * std + mean).tolist()]


def test_windows_cross_no_gap_and_hold_no_missing_value(tmp_path: Path) -> None:
    data = opened(tmp_path, air(), **AIR, broken="skip", sentinels=[-200], fill="skip", gaps="skip")
    found = {name: starts(data, name) for name in data.splits}
    bad = {20, 40, 41, 42, 70}
    hours = [hour for hour in range(120) if hour not in range(40, 43)]
    whole = [hour for hour in range(115) if not bad & {*range(hour, hour + 6)}]
    assert set(found["train"]) == {hour for hour in whole if hour + 5 <= hours[57]}
    assert set(found["test"]) <= set(whole)
    for inputs, targets in data.splits.values():
        numbers = torch.arange(len(inputs))
        assert torch.isfinite(inputs[numbers]).all()
        assert torch.isfinite(targets[numbers]).all()
    told = " ".join(data.notes)
    assert "1 gap in time, 3 steps long in all, the first before" in told
    assert "load.csv:42; no window runs over one" in told
    assert "2 bad rows skipped" in told
    assert "2 columns without a name or a value left out" in told
    crossing = opened(tmp_path, air(), **AIR, broken="skip", sentinels=[-200], fill="skip")
    assert 38 in starts(crossing, "train")
    assert any("windows run over them" in note for note in crossing.notes)


def test_missing_steps_and_values_are_filled_where_asked(tmp_path: Path) -> None:
    how = AIR | {"broken": "skip", "sentinels": [-200.0], "gaps": "fill", "split": (0.8, 0.1, 0.1)}
    line = opened(tmp_path, air(), **how, fill="linear")
    inputs, _ = line.splits["train"]
    mean, std = (torch.tensor(line.spec[key], dtype=torch.float64) for key in ("mean", "std"))
    values = inputs[torch.arange(len(inputs))][:, 0].double() * std + mean
    expected = torch.tensor([[hour / 10, 1000 + hour] for hour in range(len(inputs))], dtype=torch.float64)
    assert torch.allclose(values, expected, atol=1e-4)
    held = opened(tmp_path, air(), **how, fill="forward")
    before, _ = held.splits["train"]
    values = before[torch.arange(len(before))][:, 0].double() * torch.tensor(held.spec["std"]) + torch.tensor(
        held.spec["mean"]
    )
    assert values[40:43, 1].round().tolist() == [1039] * 3
    assert math.isclose(values[20, 0].item(), 1.9, abs_tol=1e-3)
    with pytest.raises(ConfigError, match=r"dataset\.gaps: fill needs a rule for the values"):
        opened(tmp_path, air(), **how, fill="skip")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"separator": ","},
            DataError,
            r"has one column, 'Date;Time;CO\(GT\);NOx\(GT\);;'.*dataset\.separator=semicolon",
        ),
        ({"decimal": "."}, DataError, r"load\.csv:2: column 'CO\(GT\)': '0,0' is not a number; dataset\.decimal=','\?"),
        ({"time_format": None}, DataError, r"is not an ISO date, as .*time_format='%d/%m/%Y %H\.%M\.%S'"),
        ({"time": None}, DataError, r"column 'Date': '10/03/2004' is not a number; a column of dates is named as"),
        (
            {"fill": "refuse", "broken": "refuse"},
            DataError,
            r"load\.csv:22: column 'CO\(GT\)': missing.*dataset\.fill=linear, forward or",
        ),
        ({"broken": "refuse"}, DataError, r"load\.csv:120: column 'Date Time': missing; dataset\.broken=skip leaves"),
        ({"window": 60}, ConfigError, "are too few for a window"),
    ],
)
def test_each_setting_is_named_by_what_it_would_mend(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    good = AIR | {"broken": "skip", "sentinels": [-200], "fill": "linear", "gaps": "skip"}
    with pytest.raises(error) as told:
        opened(tmp_path, air(), **good | settings)
    assert any(re.search(message, line) for line in str(told.value).split("\n")), told.value


def test_a_first_row_without_header_is_not_eaten(tmp_path: Path) -> None:
    rows = [f"{n}.5,{n * n}" for n in range(30)]
    with pytest.raises(DataError, match=r"the first line holds numbers .*dataset\.header=false"):
        opened(tmp_path, rows)
    data = opened(tmp_path, rows, header=False)
    assert data.spec["columns"] == ["column1", "column2"]
    assert sum(len(inputs) for inputs, _ in data.splits.values()) == 30 - 5 - 2
    years = ["2019,2020,2021", *(f"{n},{n},{n}" for n in range(30))]  # the names of columns that follow each other
    assert opened(tmp_path, years).spec["columns"] == ["2019", "2020", "2021"]


def test_a_forecast_prepares_its_window_as_training_did(tmp_path: Path) -> None:
    data = opened(tmp_path, air(), **AIR, broken="skip", sentinels=[-200], fill="linear", gaps="fill")
    carried = json.loads(json.dumps(dict(data.spec)))
    kind = ForecastProcessor(**{key: value for key, value in carried.items() if key != "kind"})
    (tmp_path / "now.csv").write_text("\n".join(air(47)[:-2]) + "\n", encoding="utf-8")
    window = kind.load(str(tmp_path / "now.csv"))
    inputs, _ = data.splits["train"]
    assert torch.allclose(window, inputs[torch.tensor([43])][0], atol=1e-5)
    skipping = opened(tmp_path, air(), **AIR, broken="skip", sentinels=[-200], fill="skip", gaps="skip")
    kind = ForecastProcessor(**{key: value for key, value in skipping.spec.items() if key != "kind"})
    (tmp_path / "now.csv").write_text("\n".join(air(45)[:-2]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="its last 4 steps hold a gap in time or a missing value"):
        kind.load(str(tmp_path / "now.csv"))


def test_months_are_no_gaps(tmp_path: Path) -> None:
    rows = ["day,a", *(f"{2000 + n // 12}-{1 + n % 12:02d}-01,{n}" for n in range(60))]
    data = opened(tmp_path, rows, time="day", gaps="skip")
    assert data.notes == []


def test_no_window_runs_over_a_row_that_was_left_out(tmp_path: Path) -> None:
    rows = ["a", *("oops" if hour == 30 else str(1000 + hour) for hour in range(120))]
    data = opened(tmp_path, rows, broken="skip", gaps="skip")
    assert not set(starts(data, "train")) & {*range(25, 30)}
    assert "no window runs over rows that were left out" in " ".join(data.notes)


@pytest.mark.parametrize(("number", "told"), [(-200, True), (-999, True), (9999, True), (-7, False), (80, False)])
def test_numbers_that_may_stand_for_none_are_told(tmp_path: Path, number: int, told: bool) -> None:
    rows = ["a", *(str(number if hour % 20 == 3 else 50 + hour % 24) for hour in range(120))]
    words = f"'a': {number} stands 6 times, far from all other values; if it stands for none set dataset.sentinels"
    assert (words in " ".join(opened(tmp_path, rows).notes)) == told
    settings = {"fill": "linear", "sentinels": [number]}
    assert "far from all other" not in " ".join(opened(tmp_path, rows, **settings).notes)


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y%m"])
def test_compact_dates_have_no_gap_where_a_month_ends(tmp_path: Path, form: str) -> None:
    days = (date(1990, 1, 1) + timedelta(days=n) for n in range(200 if form == "%Y%m%d" else 3000))
    stamps = dict.fromkeys(day.strftime(form) for day in days)
    rows = ["when,a", *(f"{stamp},{n % 7}" for n, stamp in enumerate(stamps))]
    data = opened(tmp_path, rows, time="when", gaps="skip")
    assert "gaps in time" not in " ".join(data.notes)
    rows = [row for n, row in enumerate(rows) if n != 40]
    assert "1 gap in time, 1 step long in all" in " ".join(opened(tmp_path, rows, time="when", gaps="skip").notes)


def test_a_first_row_of_a_date_and_numbers_is_not_taken_for_names(tmp_path: Path) -> None:
    rows = [f"2024-01-{1 + n // 24:02d} {n % 24:02d}:00:00,{n % 7},{n}.5" for n in range(120)]
    with pytest.raises(DataError, match=r"load\.csv:1: the first line holds numbers .*dataset\.header=false"):
        opened(tmp_path, rows)
    data = opened(tmp_path, rows, header=False, time="column1", gaps="skip")
    assert data.spec["columns"] == ["column2", "column3"]


def hours(times: list[str]) -> list[str]:
    return ["time,load", *(f"{time},{n}" for n, time in enumerate(times))]


@pytest.mark.parametrize(
    ("odd", "unit", "usual"),
    [("1700000060000", "milliseconds", "seconds"), ("1700000060", "seconds", "milliseconds")],
)
def test_times_of_two_units_are_refused_by_the_line_of_the_odd_one(
    tmp_path: Path, odd: str, unit: str, usual: str
) -> None:
    scale = 1000 if usual == "milliseconds" else 1
    times = [str((1_700_000_000 + 60 * n) * scale) for n in range(40)]
    times[-1] = odd
    with pytest.raises(DataError) as told:
        opened(tmp_path, hours(times), time="time")
    (line,) = told.value.lines
    assert f"load.csv:41: column 'time': '{odd}' is {unit} since 1970, where most of the column is {usual}" in line
    assert opened(tmp_path, hours([str(2**n) for n in range(40)]), time="time")  # a count is no time


def test_a_format_that_fits_no_row_is_told_once(tmp_path: Path) -> None:
    times = [f"2024-01-{1 + n // 24:02d} {n % 24:02d}:00" for n in range(48)]
    for broken in ("refuse", "skip"):
        with pytest.raises(DataError) as told:
            opened(tmp_path, hours(times), time="time", time_format="%d/%m/%Y", broken=broken)
        (line,) = told.value.lines
        assert "load.csv:2: column 'time': '2024-01-01 00:00' is not of the form dataset.time_format='%d/%m/%Y'" in line
        assert "set dataset.time_format='%Y-%m-%d %H:%M'; the same in each of the 48 rows" in line
    zoned = [time.replace(" ", "T") + "+01:00" for time in times]
    with pytest.raises(DataError, match=r"ISO dates, set dataset\.time_format=null; the same in each of the 48"):
        opened(tmp_path, hours(zoned), time="time", time_format="%d/%m/%Y")


def test_hours_that_repeat_are_refused_with_a_way_out(tmp_path: Path) -> None:
    day = [f"2024-10-27T{n:02d}:00" for n in range(24)]
    with pytest.raises(DataError, match=r"csv:5: .*times repeat: keep one row .* UTC or with an offset, as 2024"):
        opened(tmp_path, hours([*day[:3], *day[2:]]), time="time")
    half = [f"2024-10-27T{n // 2:02d}:{n % 2 * 30:02d}" for n in range(48)]
    with pytest.raises(DataError, match=r"csv:8: .*set back by an hour or less: .* in UTC or with an offset"):
        opened(tmp_path, hours([*half[:6], *half[4:]]), time="time")
    with pytest.raises(DataError, match=r"sort the rows by time, the earliest first$"):
        opened(tmp_path, hours([*day[12:], *day[:12]]), time="time")
    offset = [f"{time}{'+02:00' if n < 3 else '+01:00'}" for n, time in enumerate([*day[:3], *day[2:]])]
    assert opened(tmp_path, hours(offset), time="time", gaps="skip").splits["train"]


def test_columns_that_are_no_series_are_told(tmp_path: Path) -> None:
    rows = ["时间,load,空", *(f"{1700000000 + 3600 * n},{n * n % 7},5" for n in range(60))]
    told = opened(tmp_path, rows).notes
    assert any("column '时间' grows by 3600 at every step" in note for note in told)
    assert any("column '空' is always 5" in note for note in told)
    assert opened(tmp_path, rows, time="时间", columns=["load"]).notes == []


def test_values_before_the_first_are_told(tmp_path: Path) -> None:
    rows = ["load", "NA", "NA", *(str(n * n % 7) for n in range(50)), "NA", "3"]
    assert "3 values missing" in opened(tmp_path, rows, fill="forward").notes[-1]
    assert "2 before the first value of a series, with that" in opened(tmp_path, rows, fill="linear").notes[-1]
