"""Texts, and the classes that they may be of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.inference.processors import ranking
from bigmodel.inference.processors.steps import Step, class_steps, token_steps
from bigmodel.inference.processors.texts import TextInputs
from bigmodel.interfaces import Axis
from bigmodel.padding import pad

__all__ = ["TextClassificationProcessor"]

_LONGEST = 1 << 20  # tokens


class TextClassificationProcessor:
    """The `Processor` of text classifiers. `input` is a text, a file, a folder, a pattern, or `-` for standard input;
    each line is a text, each row of a table whose column of texts has one of the names in `text_column`, or, where
    training read it `by_file`, each file. The label's column is not looked at.

    Raises:
        ValueError: there are no classes, the tokenizer is none, or no memory would hold so long a text.
    """

    def __init__(
        self,
        classes: Sequence[str],
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
        text_column: Sequence[str] = (),
        label_column: str | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        by_file: bool = False,
        columns: Sequence[str] | None = None,
    ) -> None:
        if not classes:
            raise ValueError("classes: there are none")
        if context > _LONGEST:
            raise ValueError(f"context: no model reads {context} tokens at once")
        self._classes, self._tokenizer, self._context = classes, tokenizer_from_spec(tokenizer), context
        self.texts = TextInputs(text_column, separator, encoding, by_file, columns)

    reads_texts = True  # for Python, a `str` that names no file is one text

    def list_inputs(self, given: str) -> Sequence[str]:
        """Empty lines are passed over."""
        return self.texts.list_inputs(given)

    @property
    def notes(self) -> Sequence[str]:
        """What of the last input was not looked at."""
        return self.texts.notes

    def load(self, source: str) -> Tensor:
        """int64 (T,), at most `context` of them. DataError if there is no token."""
        tokens = self._tokenizer.encode(source.strip())[: self._context]
        if not len(tokens):
            raise DataError("input: the text is empty")
        return torch.from_numpy(tokens)

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """int64 (N, T), filled up with -1 to the longest."""
        return pad(samples).to(device)

    def predict(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        return ranking.top_classes(model(inputs), self._classes, top)

    def format_rows(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        return ranking.format_ranking("text", sources, self._classes, answered)

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", self._context, at_most=self._context)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        read = token_steps(self._tokenizer.spec, self._context, strip=True)
        return {"preprocess": read, "postprocess": class_steps(self._classes)}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Texts of unequal length."""
        tokens_NT = torch.randint(self._tokenizer.size, (count, self._context), generator=generator)
        lengths_N = torch.randint(1, self._context + 1, (count,), generator=generator)
        return tokens_NT.masked_fill(torch.arange(self._context) >= lengths_N[:, None], -1)
