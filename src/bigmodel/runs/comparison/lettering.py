"""Labels of plots in any script: with an installed font that has the letters, else escaped, which is told. Needs
matplotlib only for letters beyond ASCII.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bigmodel.runs.comparison.seed_groups import shown

_USUAL = "DejaVu Sans"  # comes with matplotlib
_NO_LETTERS = "Last Resort"  # a font of boxes for every character
_LONGEST, _LONGEST_VALUE = 60, 24
_DOLLAR = re.compile(r"(?<!\\)\$")


@dataclass(frozen=True)
class Lettering:
    """The `families` to draw with, in order, and the letters that none of them has."""

    families: tuple[str, ...] = (_USUAL,)
    missing: frozenset[str] = frozenset()

    def plain(self, text: str, longest: int = _LONGEST) -> str:
        """Text that matplotlib takes as it is, not as a formula, on one line, and not longer than a label may be."""
        escaped = self._spelled(text)
        cut = escaped if len(escaped) <= longest else escaped[: longest - 3] + "..."
        return _DOLLAR.sub(r"\\$", cut)  # parts of a text may have been made plain before

    def values(self, values: Iterable[Any]) -> dict[str, str]:
        """A label for each value of a setting, by what `shown` makes of it: numbers to four digits, long texts without
        the beginning and the end that all of them share. Values that look alike so far are numbered.
        """
        written = {shown(value): f"{value:.4g}" if isinstance(value, float) else shown(value) for value in values}
        texts = {name: self._spelled(text) for name, text in written.items()}
        long = max(map(len, texts.values()), default=0) > _LONGEST_VALUE and len(set(texts.values())) > 1
        begin = _shared([*texts.values()]) if long else 0
        end = _shared([text[begin:][::-1] for text in texts.values()]) if long else 0
        labels = {}
        for name, text in texts.items():
            own = text[begin : len(text) - end]
            cut = f"{'...' * (begin > 3)}{own}{'...' * (end > 3)}" if long else text
            labels[name] = self.plain(cut, _LONGEST_VALUE)
        alike = {label for label, count in Counter(labels.values()).items() if count > 1}
        numbers = defaultdict[str, int](int)
        for name in sorted(labels):
            if (label := labels[name]) in alike and texts[name] != label:
                numbers[label] += 1
                labels[name] = f"{label} ({numbers[label]})"
        return labels

    def _spelled(self, text: str) -> str:
        """The text on one line, in letters that can be drawn."""
        usable = (
            letter if letter.isprintable() and letter not in self.missing else _escaped(letter) for letter in text
        )
        return "".join(usable)

    @property
    def note(self) -> str:
        """A line on letters that could not be drawn; empty if there are none."""
        if not self.missing:
            return ""
        letters = "".join(sorted(self.missing)[:8])
        return f"plots: no installed font has {letters}: written as \\uXXXX; install one, as Noto Sans CJK"


def lettering(texts: Iterable[str]) -> Lettering:
    """Fonts for these texts, of those that matplotlib finds on this machine."""
    needed = {ord(letter) for text in texts for letter in text if letter > "\x7f" and letter.isprintable()}
    if not needed:
        return Lettering()
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    families, left = [_USUAL], needed - set(FT2Font(font_manager.findfont(_USUAL)).get_charmap())
    entries = sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", abs(_weight(entry))))
    for entry in entries if left else ():
        if entry.name in families or entry.name.startswith(_NO_LETTERS):
            continue
        try:
            found = left & set(FT2Font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # a font that is gone, or that is none
            continue
        if found:
            families.append(entry.name)
            left -= found
        if not left:
            break
    return Lettering(tuple(families), frozenset(map(chr, left)))


def _weight(entry: Any) -> int:
    return int(entry.weight) - 400 if isinstance(entry.weight, int) else 0


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode() if not letter.isascii() else repr(letter)[1:-1]


def _shared(texts: Sequence[str]) -> int:
    """How many letters all texts begin with."""
    columns = zip(*texts, strict=False)
    return next((place for place, letters in enumerate(columns) if len(set(letters)) > 1), min(map(len, texts)))
