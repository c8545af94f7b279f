"""How many samples each class has, in words: per split, with a warning of classes that are too small to learn."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from bigmodel.datasets.picture_targets import names_of_list
from bigmodel.datasets.splits import held_out
from bigmodel.words import printable

HANDFUL = 5  # samples; a class with fewer can hardly be learned, and may lie in one split alone
_FEW = 3  # lists in one line
_SHOWN = 12  # classes in one line
_NONE = frozenset(  # usual words for a missing value
    {"n/a", "#n/a", "na", "<na>", "n.a.", "nan", "-nan", "nat", "null", "nil", "none", "missing", "-", "--", "?"}
)


def in_words(what: str, classes: Sequence[str], labels: Mapping[str, Sequence[int]]) -> list[str]:
    """A line for each split, `train: 40 pictures: cat 30, dog 10`, and warnings of small and missing classes."""
    lines = []
    for split, numbers in labels.items():
        counts = Counter(numbers)
        sizes = {name: counts[number] for number, name in enumerate(classes)}
        lines.append(f"{split}: {len(numbers):,} {what}{_each(sizes)}")
        if split == "train":
            small = {name: size for name, size in sizes.items() if 0 < size < HANDFUL}
            if small:
                lines.append(f"warning: fewer than {HANDFUL} training {what}{_each(small)}")
        missing = [printable(name) for name, size in sizes.items() if not size]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            lines.append(f"warning: {split} has no {what} of {', '.join(missing[:_SHOWN])}{more}")
    return lines


def held_out_whole(classes: Sequence[str], labels: Sequence[int], val_fraction: float) -> list[str]:
    """A warning of classes of which every training sample is held out for validation."""
    kept, held = held_out(len(labels), val_fraction)
    left = {labels[number] for number in kept.tolist()}
    lost = sorted({labels[number] for number in held.tolist()} - left)
    names = ", ".join(printable(classes[number]) for number in lost[:_SHOWN])
    return [f"warning: dataset.val_fraction holds out every sample of {names}"] if lost else []


def alike(classes: Sequence[str]) -> list[str]:
    """A warning of classes that differ in spelling only, as `1` and `1.0`, `yes` and `YES`, or in kinds of blanks."""
    same: dict[str, list[str]] = {}
    for name in classes:
        same.setdefault(_plain(name), []).append(name)
    groups = [" and ".join(f"'{printable(name)}'" for name in names) for names in same.values() if len(names) > 1]
    return [f"warning: these are separate classes: {', '.join(groups[:_SHOWN])}"] if groups else []


def stand_ins(classes: Sequence[str], missing: Sequence[str] | None = None) -> list[str]:
    """A note of classes that may be missing labels, as `N/A`. `missing` is that of the dataset, if it has such."""
    found = [name for name in classes if name.strip().casefold() in _NONE][:_SHOWN]
    if not found:
        return []
    way = "leave such rows out"
    if missing is not None:
        way = f"set {quoted('dataset.missing', [*missing, *found])} dataset.broken=skip"
    names = ", ".join(f"'{name}'" for name in found)
    return [f"{names}: {'a class' if len(found) == 1 else 'classes'}; if this stands for a missing label, {way}"]


def lists(classes: Sequence[str]) -> list[str]:
    """A warning of classes that are lists of labels, where each row has one class."""
    found = [printable(name) for name in classes if names_of_list(name) is not None]
    if not found:
        return []
    more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
    said = f"{', '.join(found[:_FEW])}{more}"
    return [f"warning: each of these lists is a class of its own: {said}; write one label a row"]


def quoted(key: str, texts: Sequence[str]) -> str:
    """A setting of a list of texts, as it can be typed in a shell."""
    shown = ",".join("'" + text.replace("'", "\\'") + "'" for text in texts)
    return f'"{key}=[{shown}]"'


def _plain(name: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _each(sizes: Mapping[str, int]) -> str:
    """`: cat 30, dog 10`; of many classes their number, and the smallest."""
    if len(sizes) <= _SHOWN:
        return ": " + ", ".join(f"{printable(name)} {size:,}" for name, size in sizes.items())
    smallest = sorted(sizes.items(), key=lambda item: item[1])[:3]
    shown = ", ".join(f"{printable(name)} {size:,}" for name, size in smallest)
    return f" in {len(sizes):,} classes of {min(sizes.values()):,} to {max(sizes.values()):,}; the smallest: {shown}"
