"""Parse points in time to sortable numbers: ISO dates, numbers, or dates in a stated format. Nothing is guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.files.columns import Row
from bigmodel.formatting import truncate

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATES = (
    "%Y-%m-%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%b %d, %Y",
    "%d %b %Y",
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H.%M.%S", " %H.%M", " %I:%M %p", "T%H:%M:%S")
_TRIED = 2000  # values that a suggested format must read
_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")  # since 1970, each a thousand times the one before
_FIRST_S, _LAST_S = 3e8, 5e9  # 1979 to 2128: numbers of one unit cannot be taken for those of another
DATE_PARTS = ("days", "day_of_year", "weekday", "hour")


def parse_timestamps(
    texts: Sequence[str], time_format: str | None = None
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Seconds since 1970 (UTC where no zone is written), or the numbers themselves where all are numbers.

    NaN where a text is empty, or is neither, which is told by its index. Numbers and dates in one column do not mix.
    """
    values = np.full(len(texts), math.nan)
    problems: dict[int, str] = {}
    numeric = time_format is None and _is_number(next((text for text in texts if text), ""))
    if numeric and (compact := _compact(texts)) is not None:
        numeric = False
        time_format = compact
    doubt = _doubtful(texts) if numeric else None
    if doubt is not None:
        return values, {row: doubt for row, text in enumerate(texts) if text}
    seen: dict[str, float | str] = {}
    for row, text in enumerate(texts):
        if not text:
            continue
        if text not in seen:
            seen[text] = _number(text) if numeric else _seconds(text, time_format)
        found = seen[text]
        if isinstance(found, str):
            problems[row] = found
        else:
            values[row] = found
    if problems and time_format is not None and len(problems) == sum(map(bool, texts)):
        hint = _other_format([*seen])
        problems = {row: f"{text}{hint}" for row, text in problems.items()}
    if problems and time_format is None:
        likely = suggest_formats([text for text in texts if text])
        hint = (
            f"; set dataset.time_format={' or '.join(repr(one) for one in likely)}"
            if likely
            else ("; set dataset.time_format, as '%d/%m/%Y %H:%M'")
        )
        problems = {row: f"{text}{hint}" for row, text in problems.items()}
    return values, problems | (_other_units(texts, values) if numeric else {})


def timestamps_of_rows(
    rows: Sequence[Row], columns: Sequence[str], time_format: str | None
) -> tuple[NDArray[np.float64], list[str]]:
    """Timestamps of rows, where date and time may be separate columns; problems name their locations."""
    texts = [" ".join(filter(None, (row.text(column) for column in columns))) for row in rows]
    values, problems = parse_timestamps(texts, time_format)
    named = " ".join(columns)
    all_problems = problems | {row: "missing" for row, text in enumerate(texts) if not text}
    return values, [f"{rows[row].location}: column '{named}': {what}" for row, what in sorted(all_problems.items())]


def _is_number(text: str) -> bool:
    return isinstance(_number(text), float)


def _compact(texts: Sequence[str]) -> str | None:
    """Return the format of dates that are digits and sort as they are, as 20240131 or 202401: their steps are no
    numbers'.
    """
    distinct = [text for text in dict.fromkeys(texts) if text]
    for form, size in (("%Y%m%d", 8), ("%Y%m", 6)):
        if len(distinct) > 1 and all(re.fullmatch(rf"(?:1[89]|2[01])[0-9]{{{size - 2}}}", text) for text in distinct):
            return form if not any(isinstance(_seconds(text, form), str) for text in distinct) else None
    return None


def _doubtful(texts: Sequence[str]) -> str | None:
    """Return why these numbers may be dates whose order in time is not their order as numbers, or None: 31012023,
    01.02, 1990.1 and 1990.10.
    """
    distinct = [text for text in dict.fromkeys(texts) if text]
    if len(distinct) > 1 and all(re.fullmatch(r"[0-9]{8}", text) for text in distinct):
        if any(isinstance(_seconds(text, "%Y%m%d"), str) for text in distinct):
            for form in ("%d%m%Y", "%m%d%Y"):
                if not any(isinstance(_seconds(text, form), str) for text in distinct):
                    return f"'{distinct[0]}' is a date that does not sort as a number; set dataset.time_format={form!r}"
        return None
    padded = next((text for text in distinct if re.fullmatch(r"0[0-9]+\.[0-9]+", text)), None)
    if padded is not None:
        shown = truncate(padded, 40)
        return f"'{shown}' looks like a date without a year, and would be sorted as a number; write ISO dates"
    before: dict[tuple[float | str, bool], str] = {}
    for text in distinct:
        other = before.setdefault((_number(text), "." in text), text)
        if other != text:
            return (
                f"'{truncate(other, 40)}' and '{truncate(text, 40)}' are the same number; if they are dates set "
                "dataset.time_format, as '%Y.%m'"
            )
    return None


def _other_units(texts: Sequence[str], values: NDArray[np.float64]) -> dict[int, str]:
    """Find times since 1970 in another unit than most of the column, by row: as numbers they would all come last."""
    present = values >= _FIRST_S
    if not present.any():
        return {}
    unit_N = np.full(len(values), -1)
    for unit in range(len(_UNITS)):
        unit_N[(values >= _FIRST_S * 1000.0**unit) & (values < _LAST_S * 1000.0**unit)] = unit
    counts = np.bincount(unit_N[present & (unit_N >= 0)], minlength=len(_UNITS))
    if (unit_N[present] < 0).any() or (counts > 0).sum() < 2:
        return {}
    usual = int(counts.argmax())
    example = truncate(texts[int(np.flatnonzero(unit_N == usual)[0])], 40)
    return {
        row: f"'{truncate(texts[row], 40)}' is {_UNITS[unit_N[row]]} since 1970, where most of the column is "
        f"{_UNITS[usual]}, as '{example}'; write all times in one unit"
        for row in np.flatnonzero(present & (unit_N != usual)).tolist()
    }


def _other_format(texts: Sequence[str]) -> str:
    """Return the setting that reads texts of which `dataset.time_format` reads none."""
    likely = suggest_formats(texts)
    if likely:
        return f"; set dataset.time_format={' or '.join(repr(one) for one in likely)}"
    return "; they are ISO dates, set dataset.time_format=null" if looks_like_dates(texts[:_TRIED]) else ""


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return f"'{truncate(text, 40)}' is not a number, as the first value is"
    return value if math.isfinite(value) else f"'{truncate(text, 40)}' is not a finite number"


def _seconds(text: str, time_format: str | None) -> float | str:
    try:
        if time_format is not None:
            found = datetime.strptime(text, time_format)
        else:
            found = datetime.fromisoformat(f"{text}-01" if len(text) == 7 and text[4] == "-" else text)
    except ValueError:
        how = (
            "an ISO date, as 2026-11-24" if time_format is None else f"of the form dataset.time_format={time_format!r}"
        )
        return f"'{truncate(text, 40)}' is not {how}"
    return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH).total_seconds()


def suggest_formats(texts: Sequence[str]) -> list[str]:
    """Return formats that read all of these texts, most usual first; two where day and month are ambiguous."""
    tried = list(dict.fromkeys(texts))[:_TRIED]
    return [
        form
        for date in _DATES
        for form in (date + time for time in _TIMES)
        if tried and not any(isinstance(_seconds(text, form), str) for text in tried)
    ][:2]


def date_parts(texts: Sequence[str], time_format: str | None) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return float64 (N, 4): days since 1970, day of the year, weekday from Monday 0, hour; NaN where missing.

    Each text is read by itself, so that a row means the same alone as in its column: a plain number is no date.
    """
    parts = np.full((len(texts), len(DATE_PARTS)), math.nan)
    problems: dict[int, str] = {}
    seen = {text: _parts_of(text, time_format) for text in dict.fromkeys(texts) if text}
    for row, text in enumerate(texts):
        found = seen.get(text)
        if isinstance(found, str):
            problems[row] = found
        elif found is not None:
            parts[row] = found
    return parts, problems


def _parts_of(text: str, time_format: str | None) -> tuple[float, ...] | str:
    seconds = _seconds(text, time_format)
    if isinstance(seconds, str):
        return seconds
    days = seconds / 86400
    whole = math.floor(days)
    year = datetime.fromordinal(_EPOCH.toordinal() + whole).timetuple()
    return days, float(year.tm_yday), float(year.tm_wday), (days - whole) * 24


def looks_like_dates(texts: Sequence[str]) -> bool:
    """Return whether all texts are ISO dates with a month."""
    return bool(texts) and all(
        len(text) >= 7 and "-" in text and isinstance(_seconds(text, None), float) for text in texts
    )


def date_feature_names(dates: Mapping[str, str | None]) -> list[str]:
    """Return the features that columns of dates become."""
    return [f"{column}.{part}" for column in dates for part in DATE_PARTS]
