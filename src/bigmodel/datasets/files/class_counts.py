"""Describe the sizes of classes by split, with warnings about classes too small to learn."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from bigmodel.datasets.files.table_format import STAND_INS
from bigmodel.datasets.loading.splits import holdout_split
from bigmodel.formatting import escape_control, format_count

_QUOTE = re.compile(r"'[^']*'|\"[^\"]*\"")
_QUOTED = re.compile(rf"(?:{_QUOTE.pattern})(?:[\s,]+(?:{_QUOTE.pattern}))*,?")

HANDFUL = 5  # samples; a class with fewer can hardly be learned, and may lie in one split alone
_FEW = 3  # lists in one line
_SHOWN = 12  # classes in one line


def describe_counts(what: str, classes: Sequence[str], labels: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a line for each split, `train: 40 pictures: cat 30, dog 10`, and warnings of small and similar classes."""
    lines = []
    for split, numbers in labels.items():
        counts = Counter(numbers)
        sizes = {name: counts[number] for number, name in enumerate(classes)}
        lines.append(f"{split}: {format_count(len(numbers), what)}{_each(sizes)}")
        if split == "train":
            small = {name: size for name, size in sizes.items() if 0 < size < HANDFUL}
            if small:
                lines.append(f"warning: fewer than {HANDFUL} training {what}s{_each(small)}")
        missing = [escape_control(name) for name, size in sizes.items() if not size]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            lines.append(f"warning: {split} has no {what}s of {', '.join(missing[:_SHOWN])}{more}")
    return lines + warn_similar_names(classes)


def warn_held_out_classes(classes: Sequence[str], labels: Sequence[int], val_fraction: float) -> list[str]:
    """Warn of classes whose every training sample is held out for validation."""
    kept, held = holdout_split(len(labels), val_fraction)
    left = {labels[number] for number in kept.tolist()}
    lost = sorted({labels[number] for number in held.tolist()} - left)
    names = ", ".join(escape_control(classes[number]) for number in lost[:_SHOWN])
    return [f"warning: dataset.val_fraction holds out every sample of {names}"] if lost else []


def warn_similar_names(classes: Sequence[str]) -> list[str]:
    """Return a warning of classes that differ in spelling only, as `1` and `1.0`, `yes` and `YES`, or in kinds of
    blanks.
    """
    same: dict[str, list[str]] = {}
    for name in classes:
        same.setdefault(_plain(name), []).append(name)
    groups = [" and ".join(f"'{_escape_marks(name)}'" for name in names) for names in same.values() if len(names) > 1]
    return [f"warning: these are separate classes: {', '.join(groups[:_SHOWN])}"] if groups else []


def stand_ins(classes: Sequence[str], missing: Sequence[str] | None = None) -> list[str]:
    """Note classes that may be missing labels, as `N/A`; `missing` is the dataset's setting, if it has one."""
    found = [name for name in classes if name.strip().casefold() in STAND_INS][:_SHOWN]
    if not found:
        return []
    way = "leave such rows out"
    if missing is not None:
        way = f"set {quote_setting('dataset.missing', [*missing, *found])} dataset.broken=skip"
    names = ", ".join(f"'{name}'" for name in found)
    return [f"{names}: {'a class' if len(found) == 1 else 'classes'}; if this stands for a missing label, {way}"]


def lists(classes: Sequence[str]) -> list[str]:
    """Warn of classes that are lists of labels, where each row should have one class."""
    found = [escape_control(name) for name in classes if names_of_list(name) is not None]
    if not found:
        return []
    more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
    said = f"{', '.join(found[:_FEW])}{more}"
    return [f"warning: each of these lists is a class of its own: {said}; write one label a row"]


def warn_numeric_classes(classes: Sequence[str]) -> list[str]:
    """Warn of classes that are all numbers, some with a fraction, where each row should have a name."""
    try:
        numbers = [float(name) for name in classes]
    except ValueError:
        return []
    if not any(math.isfinite(number) and not number.is_integer() for number in numbers):
        return []
    said = f"{classes[0]} and {classes[1]}" if len(classes) > 1 else classes[0]
    return [
        f"warning: each number is a class of its own, as {said}; to predict numbers, set dataset.target_type=number "
        "task=regression"
    ]


def quote_setting(key: str, texts: Sequence[str]) -> str:
    """Return a setting of a list of texts, as it can be typed in a shell."""
    shown = ",".join("'" + text.replace("'", "\\'") + "'" for text in texts)
    return f'"{key}=[{shown}]"'


def _escape_marks(name: str) -> str:
    """Escape the characters of a name that look like others, as a non-breaking space or a combining accent."""
    if unicodedata.is_normalized("NFKC", name):
        return escape_control(name)
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.combining(c) or not unicodedata.is_normalized("NFKC", c)
        else escape_control(c)
        for c in name
    )


def _plain(name: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _each(sizes: Mapping[str, int]) -> str:
    """`: cat 30, dog 10`; of many classes their number, and the smallest."""
    if len(sizes) <= _SHOWN:
        return ": " + ", ".join(f"{escape_control(name)} {size:,}" for name, size in sizes.items())
    smallest = sorted(sizes.items(), key=lambda item: item[1])[:3]
    shown = ", ".join(f"{escape_control(name)} {size:,}" for name, size in smallest)
    return f" in {len(sizes):,} classes of {min(sizes.values()):,} to {max(sizes.values()):,}; the smallest: {shown}"


def names_of_list(cell: str) -> list[str] | None:
    """Return the names in a cell that is a list as Python, NumPy or JSON write it; None where it is none."""
    text = cell.strip()
    if len(text) < 2 or text[0] + text[-1] not in ("[]", "()", "{}"):
        return None
    inner = text[1:-1].strip()
    if not inner:
        return [] if text[0] == "[" else None
    if _QUOTED.fullmatch(inner):
        return [one[1:-1] for one in _QUOTE.findall(inner)]
    return [one.strip() for one in inner.split(",")] if text[0] == "[" and ("," in inner or inner.isdigit()) else None
