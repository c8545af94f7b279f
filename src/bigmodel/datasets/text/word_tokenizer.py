"""Words of any script, or characters, as tokens; both learned from texts, with token 0 for unknown ones.

How a text is cut into words is a numbered rule, which a checkpoint carries: its words must be found as it learned them.

1. Runs of letters and digits, or one sign. Marks cut words, and a language without spaces is one word a clause.
2. The same on NFC, but marks stay with their letter, and each letter of a script that is written without spaces between
   words (Chinese, Japanese, Thai, Lao, Khmer, Burmese and their kin) is a word. English is cut as by rule 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

WordRule = Literal[1, 2]
UNKNOWN = "<unk>"

_RUN = re.compile(r"\w+|[^\w\s]")  # or one sign
_UNSPACED = (  # letters of scripts that write no spaces between words (line breaking classes ID and SA of Unicode)
    "\u0e00-\u0e7f"  # Thai
    "\u0e80-\u0eff"  # Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai
    "\u3005-\u3007\u3021-\u3029\u3031-\u303c"  # marks and numerals of Han
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"  # kana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\ua000-\ua48f"  # Yi
)
_LAST_MARK = 0x1FFFF  # but for variation selectors
_JOINERS = "\u200c\u200d"  # between letters of one word


@cache
def _pattern() -> re.Pattern[str]:
    """Rule 2. Made when the first text that is not ASCII comes: finding the marks takes some milliseconds."""
    found = [chr(code) for code in range(0x300, _LAST_MARK) if unicodedata.category(chr(code))[0] == "M"]
    mark = f"[{''.join(found)}{_JOINERS}\U000e0100-\U000e01ef]"
    return re.compile(
        rf"[{_UNSPACED}](?<=\w){mark}*"  # a letter of a script without spaces
        rf"|[^\W{_UNSPACED}]+(?:{mark}+[^\W{_UNSPACED}]*)*"  # a word with its marks
        rf"|[^\w\s]{mark}*"  # one sign
    )


def split_words(text: str, rule: WordRule) -> list[str]:
    """Split a text into words and signs, in lower case."""
    if rule == 1 or text.isascii():
        return _RUN.findall(text.lower())
    return _pattern().findall(unicodedata.normalize("NFC", text.lower()))


def _split_characters(text: str) -> list[str]:
    return list(unicodedata.normalize("NFC", text))


class FittedTokenizer:
    """Tokenizer of a learned list, the commonest first; token 0 is unknown."""

    joint = ""

    def __init__(self, known: Sequence[str], split: Callable[[str], list[str]]) -> None:
        if len(set(known)) != len(known):
            raise ValueError("tokenizer: its words must be distinct")
        self._known = [UNKNOWN, *known]
        self._split = split
        self.size = len(known) + 1
        self._numbers = {part: number for number, part in enumerate(known, 1)}

    @property
    def signs(self) -> list[int]:
        """The tokens without a letter or digit."""
        return [number for part, number in self._numbers.items() if not any(map(str.isalnum, part))]

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array([self._numbers.get(part, 0) for part in self._split(text)], dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.joint.join(self._known[token] for token in tokens)


class WordTokenizer(FittedTokenizer):
    """Words and signs in lower case, the commonest of a text; token 0 is any other. Blanks are not kept.

    Raises:
        ValueError: a word is there twice.
    """

    joint = " "

    def __init__(self, words: Sequence[str], rule: WordRule = 1) -> None:
        super().__init__(words, lambda text: split_words(text, rule))
        self.spec: Mapping[str, Any] = {"name": "word", "words": list(words)} | ({"rule": rule} if rule > 1 else {})


class KnownCharTokenizer(FittedTokenizer):
    """The characters of a text on NFC, blanks included; token 0 is any other.

    Raises:
        ValueError: they are not one character each, or one is there twice.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        if any(len(character) != 1 for character in characters):
            raise ValueError("tokenizer: its characters must be one each")
        super().__init__(characters, _split_characters)
        self.spec: Mapping[str, Any] = {"name": "known_char", "characters": "".join(characters)}


def fit_word_tokenizer(texts: Iterable[str], min_count: int = 1, rule: WordRule = 1) -> WordTokenizer:
    """Learn the words that the texts hold at least `min_count` times, the commonest first."""
    return WordTokenizer(_common((split_words(text, rule) for text in texts), min_count), rule)


def fit_char_tokenizer(texts: Iterable[str], min_count: int = 1) -> KnownCharTokenizer:
    """Learn the characters that the texts hold at least `min_count` times, the commonest first."""
    return KnownCharTokenizer(_common(map(_split_characters, texts), min_count))


def _common(parts: Iterable[Sequence[str]], min_count: int) -> list[str]:
    counts = Counter(part for text in parts for part in text)
    return sorted((part for part, n in counts.items() if n >= min_count), key=lambda part: (-counts[part], part))
