"""Translate texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.formatting import columns_of, escape_control, left
from bigmodel.inference.processors.steps import Step, token_steps
from bigmodel.inference.processors.texts import TextInputs
from bigmodel.inference.shown import Shown
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.seq2seq_search import EncoderDecoder, beam_search
from bigmodel.padding import pad

__all__ = ["TranslationProcessor"]

_MAX_CONTEXT = 1 << 16  # tokens


class TranslationProcessor:
    """`Processor` of encoder-decoders. `input` is a text, a file, or `-` for standard input.

    Each line is a text, or each row of a table whose text column has one of the names in `text_column`.

    Raises:
        ValueError: the tokenizer's spec is invalid, or `context` is longer than any memory holds.
    """

    reads_texts = True  # in Python, a `str` that names no file is one text

    @dataclass(frozen=True)
    class Options:
        """Prediction options of translation models."""

        top: PositiveInt | None = 3  # texts to list for each source; None: all that the search kept
        beam: PositiveInt = 8  # texts kept in the search; 1: greedy

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
        text_column: Sequence[str] = (),
        separator: str | None = None,
        encoding: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if context > _MAX_CONTEXT:
            raise ValueError(f"context: must be at most {_MAX_CONTEXT} tokens, got {context}")
        self._tokenizer = tokenizer_from_spec(tokenizer)
        self._context = context
        self.texts = TextInputs(text_column, separator, encoding, names=columns)

    def list_inputs(self, given: str) -> Sequence[str]:
        """List the texts; empty lines are skipped."""
        return self.texts.list_inputs(given)

    @property
    def notes(self) -> Sequence[str]:
        """Parts of the last input that were ignored, one line each."""
        return self.texts.notes

    def load(self, source: str) -> Tensor:
        """Tokenize a source text, int64 (S,).

        Raises:
            DataError: the text has no token, or more than the model reads: a truncated text has no translation.
        """
        tokens_S = torch.from_numpy(self._tokenizer.encode(source.strip()))
        if not 0 < len(tokens_S) <= self._context:
            raise DataError(f"input: needs 1 to {self._context} tokens, not {len(tokens_S)}: {source[:80]}")
        return tokens_S

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """Pad sources and append the token that begins a target: int64 (N, context + 1)."""
        begin_N1 = torch.full((len(samples), 1), self._tokenizer.size)
        return torch.cat([pad(samples, self._context), begin_N1], dim=1).to(device)

    def show(self, inputs: Tensor) -> Shown:
        """Decode the source."""
        tokens = inputs[: self._context].tolist()
        return Shown(self._tokenizer.decode([token for token in tokens if 0 <= token < self._tokenizer.size]))

    def predict(self, model: nn.Module, inputs: Tensor, options: Options) -> list[dict[str, Any]]:
        """Return for each source the most probable `text` found, its `probability`, and the `top` texts."""
        sources_NS = inputs[:, : self._context]
        targets_NBT, log_probs_NB = beam_search(cast(EncoderDecoder, model), sources_NS, options.beam)
        predictions = []
        for targets, log_probs in zip(targets_NBT.tolist(), log_probs_NB.tolist(), strict=True):
            ranked = [
                {"text": self._tokenizer.decode([n for n in target if n >= 0]), "probability": math.exp(log_prob)}
                for target, log_prob in zip(targets, log_probs, strict=True)
                if log_prob > -math.inf
            ]
            predictions.append({**ranked[0], "top": ranked[: options.top]})
        return predictions

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        width = max(columns_of(escape_control(text)) for text in ("text", *sources))
        for index, (source, prediction) in enumerate(predictions):
            if index == 0:
                yield f"{'text':<{width}}  probability  becomes"
            text = escape_control(prediction["text"])
            yield f"{left(escape_control(source), width)}  {prediction['probability']:>11.4f}  {text}"

    def axes(self) -> Mapping[int, Axis]:
        """Dimension 1: `context` source positions, then the target so far."""
        longest = 2 * self._context + 1
        return {1: Axis("time", longest, at_least=self._context + 1, at_most=longest)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        end = self._tokenizer.size
        *read, _ = token_steps(self._tokenizer.spec, None, strip=True)
        padding: Step = {"op": "pad_to", "length": self._context, "value": -1}
        begin: Step = {"op": "append_token", "token": end}
        batch: Step = {"op": "batch", "pad": -1, "dtype": "int64"}
        generate: Step = {
            "op": "generate",
            "from": "the logits of the last position",
            "append": "the token",
            "until": end,
        }
        detokenize: Step = {"op": "detokenize", "tokenizer": dict(self._tokenizer.spec)}
        return {"preprocess": [*read, padding, begin, batch], "postprocess": [generate, detokenize]}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Return sources of unequal length, each followed by the beginning of a target."""
        length = 2 * self._context + 1
        tokens_NX = torch.randint(self._tokenizer.size, (count, length), generator=generator)
        tokens_NX[:, self._context] = self._tokenizer.size
        lengths_N1 = torch.randint(1, self._context + 1, (count, 1), generator=generator)
        positions_X = torch.arange(length)
        return tokens_NX.masked_fill((positions_X >= lengths_N1) & (positions_X < self._context), -1)
