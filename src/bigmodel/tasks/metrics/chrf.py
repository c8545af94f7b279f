"""chrF: overlap of the character n-grams of two texts (Popović 2015, aclanthology.org/W15-3049).

N-grams of one to six characters without blanks; recall counts twice as much as precision. This is the score of a whole
corpus: counts are summed before they are divided, as sacreBLEU does (Post 2018, arXiv:1804.08771).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_LONGEST = 6
_BETA = 2
SUMS = 3 * _LONGEST


def count_ngrams(found: Sequence[str], true: Sequence[str]) -> list[int]:
    """Count, for n-grams of each length, those of the predicted texts, of the true ones, and of both: (18,), to be
    added up.
    """
    sums = [0] * SUMS
    for one, other in zip(found, true, strict=True):
        for length in range(1, _LONGEST + 1):
            runs, wanted = _char_ngrams(one, length), _char_ngrams(other, length)
            for place, number in enumerate((runs.total(), wanted.total(), (runs & wanted).total())):
                sums[3 * (length - 1) + place] += number
    return sums


def chrf(sums: Sequence[float]) -> float:
    """Return the F score, from 0 to 1, of precision and recall, each the mean over the lengths that both sides have."""
    rows = [sums[first : first + 3] for first in range(0, SUMS, 3)]
    shares = [(both / found, both / true) for found, true, both in rows if found and true]
    if not shares:
        return 0.0
    precision, recall = (sum(column) / len(shares) for column in zip(*shares, strict=True))
    weighted = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / weighted if weighted else 0.0


def _char_ngrams(text: str, length: int) -> Counter[str]:
    letters = "".join(text.split())
    return Counter(letters[first : first + length] for first in range(len(letters) - length + 1))
