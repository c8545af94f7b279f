"""Texts in which a token is hidden, and what it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.inference.processors import ranking
from bigmodel.inference.processors.sentences import TextClassificationProcessor
from bigmodel.inference.processors.steps import Step, class_steps, token_steps

__all__ = ["MaskedTokenProcessor"]

_HIDDEN = "<mask>"


class MaskedTokenProcessor(TextClassificationProcessor):
    """The `Processor` of models that guess hidden tokens: `input` as for `TextClassificationProcessor`, each text with
    one `<mask>` in it. The tokens of the vocabulary stand where a classifier's classes would.

    Raises:
        ValueError: as `TextClassificationProcessor`.
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
        tokens = tokenizer_from_spec(tokenizer)
        classes = [tokens.decode([number]) for number in range(tokens.size)]
        super().__init__(classes, tokenizer, context, text_column, label_column, separator, encoding, by_file, columns)

    def load(self, source: str) -> Tensor:
        """int64 (T,); the hidden token is the number after the vocabulary's last.

        Raises:
            DataError: there is not one hidden token within the context.
        """
        before, _, after = source.partition(_HIDDEN)
        parts = [*self._tokenizer.encode(before), self._tokenizer.size, *self._tokenizer.encode(after)]
        hidden = len(self._tokenizer.encode(before))
        if source.count(_HIDDEN) != 1 or hidden >= self._context:
            raise DataError(f"input: needs one {_HIDDEN} within its first {self._context} tokens: {source[:80]}")
        return torch.tensor(parts[: self._context], dtype=torch.int64)

    def steps(self) -> Mapping[str, Sequence[Step]]:
        split = {"op": "replace_mask", "text": _HIDDEN, "token": self._tokenizer.size}
        found = {"op": "select_position", "axis": 1, "where_input_is": self._tokenizer.size}
        read = token_steps(self._tokenizer.spec, self._context, strip=False)
        return {"preprocess": [split, *read], "postprocess": [found, *class_steps(self._classes)]}

    def predict(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        places_N = (inputs == self._tokenizer.size).int().argmax(1)
        samples_N = torch.arange(len(inputs), device=inputs.device)
        return ranking.top_classes(model(inputs)[samples_N, places_N], self._classes, top)
