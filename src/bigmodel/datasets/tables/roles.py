"""Infer the role of each table column from its values, unless the config states it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bigmodel.datasets.files.columns import Table
from bigmodel.datasets.files.timestamps import looks_like_dates, suggest_formats
from bigmodel.formatting import truncate

_FEW = 20  # values that can be categories whatever the number of rows
_SMALL = 5  # rows, of which nothing can be said
_MOSTLY = 0.9  # share of values that must be numbers, for the others to be mistakes
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"on", "off"})
_CLASSES = 20  # whole numbers, from 0 or 1 on, that are classes when they are the target
_COMMA = re.compile(r"[-+]?[0-9]*,[0-9]+")  # a number with a decimal comma, or one with a mark of thousands
_POINT = re.compile(r"[-+]?[0-9]*\.?[0-9]+")
_PADDED = re.compile(r"0[0-9]{2,}")  # 02139: a code, which as a number would lose its first digit; 08 may be an hour
_CODE_DIGITS, _MANY = 5, 20  # digits of whole numbers of one length, and different ones, that may be codes
_MARKED = re.compile(r"[-+(]*[^\w\s,.()+-]?[-+]? ?[0-9][0-9,.' ]*%?[^\w\s,.()+-]?\)?")  # $1,200 or 12%
_SAMPLE = 5000  # values by which a column is judged, besides its numbers


@dataclass
class ColumnRoles:
    """Columns by role; `ignored` maps each column to the reason. `notes` are lines for the plan."""

    numbers: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    dates: dict[str, str | None] = field(default_factory=dict)  # with the format, None for ISO
    booleans: list[str] = field(default_factory=list)  # which are categories, too
    ignored: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)  # numbers that may be codes, and why

    def notes(self) -> list[str]:
        flat = [name for name in self.categories if name not in self.booleans]
        lines = [
            f"{what}: {_list_names(names)}"
            for what, names in (
                ("numbers", self.numbers),
                ("categories", flat),
                ("booleans", self.booleans),
                ("dates", [*self.dates]),
            )
            if names
        ]
        why = "; ".join(f"{name or repr(name)} ({reason})" for name, reason in self.ignored.items())
        ignored = [f"not used: {truncate(why, 400)}"] if why else []
        codes = [
            f"column '{name}': {why}, counts as a number; if it holds codes set "
            f"dataset.categorical_columns=['{name}'], or dataset.ignored_columns"
            for name, why in self.codes.items()
        ]
        return [*(f"columns by role, inferred: {line}" for line in [*lines, *ignored]), *codes]


def infer_roles(
    table: Table, given: Mapping[str, Sequence[str]], taken: Sequence[str], time_format: str | None
) -> ColumnRoles:
    """Give every column a role: those in `given` (numbers, categories, ignored) keep them, `taken` are no features."""
    roles = ColumnRoles(
        list(given["numbers"]), list(given["categories"]), {}, [], dict.fromkeys(given["ignored"], "as set")
    )
    known = {*roles.numbers, *roles.categories, *roles.ignored, *taken}
    for name in table.columns:
        if name not in known:
            _place(table, name, roles, time_format)
    return roles


def _place(table: Table, name: str, roles: ColumnRoles, time_format: str | None) -> None:
    values, problems = table.numbers(name)
    texts = table.texts(name)
    there = [text for text in texts if text]
    distinct = dict.fromkeys(there)
    if len(distinct) < 2:
        roles.ignored[name] = "no values" if not distinct else "always the same"
    elif (padded := None if problems else with_leading_zero(there)) is not None and _is_even(distinct):
        if _may_be_categories(distinct, there):
            roles.categories.append(name)
        else:
            roles.ignored[name] = (
                f"digits with leading zeros, as '{truncate(padded, 20)}': an identifier; name it in "
                "dataset.numeric_columns or dataset.categorical_columns if it is not one"
            )
    elif not problems:
        reason = why_identifier(name, values[values == values].tolist(), len(texts))
        if reason:
            roles.ignored[name] = reason
        else:
            roles.numbers.append(name)
            first = next(iter(distinct))
            if padded is not None:
                roles.codes[name] = f"has leading zeros, as '{truncate(padded, 20)}'"
            elif len(distinct) > _MANY and len(first) >= _CODE_DIGITS and first.isdigit() and _is_even(distinct):
                roles.codes[name] = f"whole numbers of {len(first)} digits each, as '{truncate(first, 20)}'"
    elif len(there) - len(problems) >= _MOSTLY * len(there) and len(there) > _FEW:
        roles.numbers.append(name)  # the rest are mistakes, or values that stand for none: they are reported
    elif any({text.lower() for text in distinct} <= pair for pair in _BOOLEANS):
        roles.categories.append(name)
        roles.booleans.append(name)
    elif looks_like_dates([*distinct][:_SAMPLE]):
        roles.dates[name] = None
    elif (forms := suggest_formats([*distinct][:_SAMPLE])) and time_format in forms:
        roles.dates[name] = time_format
    elif forms:
        roles.ignored[name] = f"dates that are not ISO; dataset.time_format={forms[0]!r} reads them"
    elif marks := _marks([*distinct], table.format.decimal):
        roles.ignored[name] = marks
    elif _may_be_categories(distinct, there):
        roles.categories.append(name)
    else:
        roles.ignored[name] = "texts, nearly all different"


def _may_be_categories(distinct: Mapping[str, None], there: Sequence[str]) -> bool:
    return len(distinct) <= max(_FEW, len(there) // 2) and (len(distinct) < len(there) or len(there) < _SMALL)


def _is_even(texts: Collection[str]) -> bool:
    """Return whether all texts are digits, and each has as many of them as the others."""
    return len({*map(len, texts)}) == 1 and all(map(str.isdigit, texts))


def with_leading_zero(texts: Sequence[str]) -> str | None:
    """Return the first of these texts that is digits after a zero, as a zip code may be; None where there is none."""
    return next((text for text in texts if text[:1] == "0" and _PADDED.fullmatch(text)), None)


def _marks(texts: Sequence[str], decimal: str) -> str | None:
    """Return why texts are numbers in disguise, neither categories nor words; None where they are not."""
    endless = next((text for text in texts if text.lower().lstrip("+-") in ("inf", "infinity")), None)
    if endless is not None:
        return f"numbers, of which some are not finite, as '{endless}'; name them in dataset.missing"
    if sum(_MARKED.fullmatch(text) is not None for text in texts) < _MOSTLY * len(texts):
        return None
    plain, number = (_COMMA, _POINT) if decimal == "." else (_POINT, _COMMA)
    odd = (text for text in texts if number.fullmatch(text) is None and not text.isdigit())
    shown = truncate(next(odd, texts[0]), 20)
    if sum(plain.fullmatch(text) is not None or text.isdigit() for text in texts) >= _MOSTLY * len(texts):
        other = "," if decimal == "." else "."
        return f"numbers as '{shown}'; set dataset.decimal='{other}', or take marks of thousands out"
    return f"numbers with signs, as '{shown}'; take the signs out, or name it in dataset.categorical_columns"


def why_identifier(name: str, values: Sequence[float], rows: int) -> str | None:
    """Return why a column only identifies rows, as a row number or an id does; None if it does not."""
    if len(values) < rows or not rows or not all(value.is_integer() for value in values) or len(set(values)) < rows:
        return None
    first = values[0]
    if rows > 2 and first in (0.0, 1.0) and all(value == first + n for n, value in enumerate(values)):
        return "numbers its rows, as an index of pandas does"
    short = name.strip().lower()
    return (
        "an identifier" if short in ("id", "index") or short.endswith(("_id", " id")) or name.endswith("Id") else None
    )


def target_kind(table: Table, target: str) -> tuple[str, str]:
    """`class` or `number`, and why: numbers are measurements where they have decimals or are many."""
    values, problems = table.numbers(target)
    texts = [text for text in table.texts(target) if text]
    if len(problems) > (1 - _MOSTLY) * len(texts) or (problems and len(texts) <= _FEW):
        return "class", "it has texts"
    if (padded := with_leading_zero(texts)) is not None and _is_even(texts):
        return "class", f"it has leading zeros, as '{truncate(padded, 20)}'"
    odd = f", and '{truncate(table.texts(target)[next(iter(problems))], 20)}'" if problems else ""
    distinct = {value for value in values.tolist() if value == value}
    ways = len(set(texts))  # 7 and 007 are two classes
    odd = f" written in {ways} ways{odd}" if ways > len(distinct) and not problems else odd
    whole = all(value == int(value) for value in distinct)
    if whole and (len(distinct) <= 2 or (len(distinct) <= _CLASSES and max(distinct) - min(distinct) < 2 * _CLASSES)):
        return "class", f"it has {len(distinct)} whole numbers{odd}"
    if len(distinct) <= 2:
        return "class", f"it has {len(distinct)} values{odd}"
    return "number", f"it has {len(distinct):,} different numbers{odd}"


def _list_names(names: Sequence[str]) -> str:
    return f"{truncate(', '.join(names), 300)} ({len(names)})"
