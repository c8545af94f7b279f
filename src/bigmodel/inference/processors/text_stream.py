"""The text of tokens as they come, up to what stops it."""

from __future__ import annotations

from collections.abc import Collection

from bigmodel.datasets.text.tokenizers import Tokenizer

_UNFINISHED = "\ufffd"  # of a character whose bytes are not all there yet


class TextStream:
    """Text that ends before a token of `stop`, or before the first of the strings `stops`.

    `tokens` are those of the text, with those of a string that ended it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Collection[int], stops: Collection[str] = ()) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.has_ended = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._stops = stops

    def add(self, token: int) -> str:
        """Add a token; return the text that is certain by now and was not returned before.

        The beginning of a stop string is held back, and an unfinished character.
        """
        if self.has_ended or token in self._stop:
            return self.close()
        self.tokens.append(token)
        whole = self._tokenizer.decode(self.tokens)
        found = [place for place in map(whole.find, self._stops) if place >= 0]
        if found:
            self.has_ended = True
            return self._show(whole[: min(found)])
        if whole.endswith(_UNFINISHED):
            return ""
        return self._show(whole[: len(whole) - self._begun(whole)])

    def close(self) -> str:
        """End the text; return what was held back."""
        if self.has_ended:
            return ""
        self.has_ended = True
        return self._show(self._tokenizer.decode(self.tokens))

    def _begun(self, whole: str) -> int:
        """Return how many of the last characters may be the beginning of a stop string."""
        longest = max(map(len, self._stops), default=1)
        sizes = range(min(longest - 1, len(whole)), 0, -1)
        return next((size for size in sizes if any(one.startswith(whole[-size:]) for one in self._stops)), 0)

    def _show(self, whole: str) -> str:
        new, self.text = whole[len(self.text) :], whole
        return new
