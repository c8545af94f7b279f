"""Predict a masked token of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.inference.processors.ranking import RankingOptions, top_classes
from bigmodel.inference.processors.sentences import TextClassificationProcessor
from bigmodel.inference.processors.steps import Step, class_steps, token_steps

__all__ = ["MaskedTokenProcessor"]

_MASK = "<mask>"


class MaskedTokenProcessor(TextClassificationProcessor):
    """`Processor` of masked language models: each text contains one `<mask>`.

    `input` has the forms of `TextClassificationProcessor`; the classes are the tokens of the vocabulary.

    Raises:
        ValueError: see `TextClassificationProcessor`.
    """

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
        text_column: Sequence[str] = (),
        label_column: str | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        by_file: bool = False,
        columns: Sequence[str] | None = None,
    ) -> None:
        vocabulary = tokenizer_from_spec(tokenizer)
        classes = [vocabulary.decode([token]) for token in range(vocabulary.size)]
        super().__init__(classes, tokenizer, context, text_column, label_column, separator, encoding, by_file, columns)

    def load(self, source: str) -> Tensor:
        """Tokenize a text: int64 (T,); the mask's id is the vocabulary size.

        Raises:
            DataError: the context does not hold exactly one mask.
        """
        before, _, after = source.partition(_MASK)
        prefix = self._tokenizer.encode(before)
        if source.count(_MASK) != 1 or len(prefix) >= self._context:
            raise DataError(f"input: needs one {_MASK} within its first {self._context} tokens: {source[:80]}")
        tokens = [*prefix, self._tokenizer.size, *self._tokenizer.encode(after)]
        return torch.tensor(tokens[: self._context], dtype=torch.int64)

    def steps(self) -> Mapping[str, Sequence[Step]]:
        mask = {"op": "replace_mask", "text": _MASK, "token": self._tokenizer.size}
        select = {"op": "select_position", "axis": 1, "where_input_is": self._tokenizer.size}
        read = token_steps(self._tokenizer.spec, self._context, strip=False)
        return {"preprocess": [mask, *read], "postprocess": [select, *class_steps(self._classes)]}

    def predict(self, model: nn.Module, inputs: Tensor, options: RankingOptions) -> list[dict[str, Any]]:
        """Return for each text the most probable tokens at its mask."""
        positions_N = (inputs == self._tokenizer.size).int().argmax(1)
        samples_N = torch.arange(len(inputs), device=inputs.device)
        return top_classes(model(inputs)[samples_N, positions_N], self._classes, options.top)
