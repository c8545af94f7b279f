"""Labels of plots in any script: in an installed font that has the letters, else escaped with a note.

Needs matplotlib only for letters beyond ASCII.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bigmodel.runs.comparison.seed_groups import format_value

_DEFAULT_FONT = "DejaVu Sans"  # comes with matplotlib
_BOXES_FONT = "Last Resort"  # draws a box for every character
_MAX_LABEL = 60  # letters
_MAX_VALUE = 24  # letters
_DOLLAR = re.compile(r"(?<!\\)\$")


@dataclass(frozen=True)
class Lettering:
    """Font `families` to draw with, in order, and the letters that none of them has."""

    families: tuple[str, ...] = (_DEFAULT_FONT,)
    missing: frozenset[str] = frozenset()

    def plain(self, text: str, longest: int = _MAX_LABEL) -> str:
        """Return text for a label: on one line, of limited length, and not parsed as a formula by matplotlib."""
        return _fit(self._drawable_letters(text), longest)

    def values(self, values: Iterable[Any]) -> dict[str, str]:
        """Return a label for each value of a setting, by its text from `format_value`.

        Numbers get four digits; long texts lose the beginning and the end that all of them have in common. Labels that
        are then equal are numbered.
        """
        texts = {}
        for value in values:
            shown = f"{value:.4g}" if isinstance(value, float) else format_value(value)
            texts[format_value(value)] = self._drawable_letters(shown)
        long = max(map(_width, texts.values()), default=0) > _MAX_VALUE and len({*map(tuple, texts.values())}) > 1
        begin = _common_prefix_length([*texts.values()]) if long else 0
        end = _common_prefix_length([text[begin:][::-1] for text in texts.values()]) if long else 0
        labels = {}
        for name, text in texts.items():
            head, own, tail = text[:begin], text[begin : len(text) - end], text[len(text) - end :]
            marked = [*_shorten_to_mark(head), *own, *_shorten_to_mark(tail)] if long else text
            labels[name] = _fit(marked, _MAX_VALUE)
        alike = {label for label, count in Counter(labels.values()).items() if count > 1}
        numbers = defaultdict[str, int](int)
        for name in sorted(labels):
            if (label := labels[name]) in alike and "".join(texts[name]) != label:
                numbers[label] += 1
                labels[name] = f"{label} ({numbers[label]})"
        return labels

    def _drawable_letters(self, text: str) -> list[str]:
        """Return each letter of a text as it is drawn, escaped where it cannot be."""
        return [letter if letter.isprintable() and letter not in self.missing else _escape(letter) for letter in text]

    @property
    def note(self) -> str:
        """A line about letters that could not be drawn; empty if there are none."""
        if not self.missing:
            return ""
        letters = "".join(sorted(self.missing)[:8])
        return f"plots: no installed font has {letters}: written as \\uXXXX; install one, as Noto Sans CJK"


def choose_fonts(texts: Iterable[str]) -> Lettering:
    """Choose fonts for these texts among those that matplotlib finds on this machine."""
    needed = {ord(letter) for text in texts for letter in text if letter > "\x7f" and letter.isprintable()}
    if not needed:
        return Lettering()
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    families, left = [_DEFAULT_FONT], needed - set(FT2Font(font_manager.findfont(_DEFAULT_FONT)).get_charmap())
    entries = sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", abs(_weight(entry))))
    for entry in entries if left else ():
        if entry.name in families or entry.name.startswith(_BOXES_FONT):
            continue
        try:
            found = left & set(FT2Font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # the file is gone, or is not a font
            continue
        if found:
            families.append(entry.name)
            left -= found
        if not left:
            break
    return Lettering(tuple(families), frozenset(map(chr, left)))


def _weight(entry: Any) -> int:
    return int(entry.weight) - 400 if isinstance(entry.weight, int) else 0


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode() if not letter.isascii() else repr(letter)[1:-1]


def _width(drawn: Sequence[str]) -> int:
    return sum(map(len, drawn))


def _shorten_to_mark(left_out: Sequence[str]) -> list[str]:
    """Return a mark for the letters, or themselves where that is no longer."""
    return ["..."] if _width(left_out) > 3 else [*left_out]


def _fit(drawn: Sequence[str], longest: int) -> str:
    """Return the letters as one label, cut between two of them where they are too long."""
    if _width(drawn) > longest:
        kept = sum(end <= longest - 3 for end in accumulate(map(len, drawn)))
        drawn = [*drawn[:kept], "..."]
    return _DOLLAR.sub(r"\\$", "".join(drawn))  # a dollar sign may be escaped already


def _common_prefix_length(texts: Sequence[Sequence[str]]) -> int:
    """Return the length of the texts' common prefix."""
    columns = zip(*texts, strict=False)
    return next((place for place, letters in enumerate(columns) if len(set(letters)) > 1), min(map(len, texts)))
