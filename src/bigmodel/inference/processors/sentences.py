"""Classify texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.inference.processors.ranking import RankingOptions, format_ranking, top_classes
from bigmodel.inference.processors.steps import Step, class_steps, token_steps
from bigmodel.inference.processors.texts import TextInputs
from bigmodel.inference.shown import Shown
from bigmodel.interfaces import Axis, NoOptions
from bigmodel.padding import pad

__all__ = ["TextClassificationProcessor"]

_MAX_CONTEXT = 1 << 20  # tokens


class TextClassificationProcessor:
    """`Processor` of text classifiers. `input` is a text, a file, a folder, a pattern, or `-` for standard input.

    Each line is a text, or each row of a table whose text column has one of the names in `text_column`, or, with
    `by_file`, each file. The label column is ignored.

    Raises:
        ValueError: `classes` is empty, the tokenizer's spec is invalid, or `context` is longer than any memory holds.
    """

    Options: type[NoOptions] = RankingOptions
    reads_texts = True  # in Python, a `str` that names no file is one text

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
            raise ValueError("classes: must not be empty")
        if context > _MAX_CONTEXT:
            raise ValueError(f"context: must be at most {_MAX_CONTEXT} tokens, got {context}")
        self._classes = classes
        self._tokenizer = tokenizer_from_spec(tokenizer)
        self._context = context
        self.texts = TextInputs(text_column, separator, encoding, by_file, columns)

    def list_inputs(self, given: str) -> Sequence[str]:
        """List the texts; empty lines are skipped."""
        return self.texts.list_inputs(given)

    @property
    def notes(self) -> Sequence[str]:
        """Parts of the last input that were ignored, one line each."""
        return self.texts.notes

    def load(self, source: str) -> Tensor:
        """Tokenize a text and truncate it: int64 (T,), T at most `context`.

        Raises:
            DataError: the text has no token.
        """
        tokens = self._tokenizer.encode(source.strip())[: self._context]
        if not len(tokens):
            raise DataError("input: the text is empty")
        return torch.from_numpy(tokens)

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """Pad texts with -1 to the longest: int64 (N, T)."""
        return pad(samples).to(device)

    def show(self, inputs: Tensor) -> Shown:
        """Decode the tokens; words that the vocabulary lacks are not in them."""
        return Shown(self._tokenizer.decode([token for token in inputs.tolist() if 0 <= token < self._tokenizer.size]))

    def predict(self, model: nn.Module, inputs: Tensor, options: RankingOptions) -> list[dict[str, Any]]:
        return top_classes(model(inputs), self._classes, options.top)

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        return format_ranking("text", sources, self._classes, predictions)

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", self._context, at_most=self._context)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        read = token_steps(self._tokenizer.spec, self._context, strip=True)
        return {"preprocess": read, "postprocess": class_steps(self._classes)}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Return texts of unequal length."""
        tokens_NT = torch.randint(self._tokenizer.size, (count, self._context), generator=generator)
        lengths_N = torch.randint(1, self._context + 1, (count,), generator=generator)
        return tokens_NT.masked_fill(torch.arange(self._context) >= lengths_N[:, None], -1)
