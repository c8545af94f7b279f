"""A text, and how a language model goes on with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.formatting import escape_control
from bigmodel.inference.processors.steps import Step, token_steps
from bigmodel.inference.processors.texts import TextInputs
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.generation import as_decoder, generate
from bigmodel.models.decoding.sampling import Sampling
from bigmodel.padding import pad

__all__ = ["TextGenerationProcessor"]

_LONGEST = 1 << 20  # tokens
_START = "\n"  # what an empty text begins with: every text dataset has it


class TextGenerationProcessor:
    """The `Processor` of language models. `input` is a text, a file that holds one, or `-` for standard input.

    Raises:
        ValueError: the tokenizer is none, or no memory would hold so long a text.
    """

    def __init__(self, tokenizer: Mapping[str, Any], context: PositiveInt, encoding: str | None = None) -> None:
        if context > _LONGEST:
            raise ValueError(f"context: no model reads {context} tokens at once")
        self._tokenizer, self._context = tokenizer_from_spec(tokenizer), context
        self.texts = TextInputs(encoding=encoding)

    reads_texts = True  # for Python, a `str` that names no file is one text

    def list_inputs(self, given: str) -> Sequence[str]:
        return [self.texts.read_whole(given)]

    @property
    def notes(self) -> Sequence[str]:
        """What of the last input was not looked at."""
        return self.texts.notes

    def load(self, source: str) -> Tensor:
        """int64 (T,)."""
        return torch.from_numpy(self._tokenizer.encode(source or _START))

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """int64 (N, T)."""
        return pad(samples).to(device)

    def predict(
        self, model: nn.Module, inputs: Tensor, sample: Mapping[str, Any] | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """The `text` that follows, and how many `tokens` it has."""
        how = Sampling(**(sample or {}))
        reader = as_decoder(model)
        made = [generate(reader, one_T[one_T >= 0][None], how.max_new_tokens, how.choose)[0] for one_T in inputs]
        return [{"text": self._tokenizer.decode(tokens.tolist()), "tokens": len(tokens)} for tokens in made]

    def format_rows(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        """The text and what follows it, as lines."""
        for source, answer in answered:
            yield from (escape_control(line) for line in (source + answer["text"]).split("\n"))

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", self._context, at_most=self._context)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        again: Step = {"op": "generate", "from": "the logits of the last position", "append": "the token drawn"}
        back: Step = {"op": "detokenize", "tokenizer": dict(self._tokenizer.spec)}
        last: Step = {"op": "keep_last", "length": self._context}
        *read, batch = token_steps(self._tokenizer.spec, None, strip=False)
        return {"preprocess": [*read, last, batch], "postprocess": [again, {"op": "softmax", "axis": 2}, back]}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self._tokenizer.size, (count, self._context), generator=generator)
