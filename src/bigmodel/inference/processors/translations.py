"""Texts, and what each becomes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.formatting import columns_of, escape_control, left
from bigmodel.inference.processors.steps import Step, token_steps
from bigmodel.inference.processors.texts import TextInputs
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.seq2seq_search import EncoderDecoder, beam_search
from bigmodel.padding import pad

__all__ = ["TranslationProcessor"]

_LONGEST = 1 << 16  # tokens


class TranslationProcessor:
    """The `Processor` of encoder-decoders. `input` is a text, a file, or `-` for standard input; each line is a text,
    or each row of a table whose column of texts has one of the names in `text_column`.

    Raises:
        ValueError: the tokenizer is none, or no memory would hold so long a text.
    """

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
        text_column: Sequence[str] = (),
        separator: str | None = None,
        encoding: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if context > _LONGEST:
            raise ValueError(f"context: no model reads {context} tokens at once")
        self._tokenizer, self._context = tokenizer_from_spec(tokenizer), context
        self.texts = TextInputs(text_column, separator, encoding, names=columns)

    reads_texts = True  # for Python, a `str` that names no file is one text

    def list_inputs(self, given: str) -> Sequence[str]:
        """Empty lines are passed over."""
        return self.texts.list_inputs(given)

    @property
    def notes(self) -> Sequence[str]:
        """What of the last input was not looked at."""
        return self.texts.notes

    def load(self, source: str) -> Tensor:
        """int64 (S,).

        Raises:
            DataError: there is no token, or more than the model reads: half a text has no translation.
        """
        tokens_S = torch.from_numpy(self._tokenizer.encode(source.strip()))
        if not 0 < len(tokens_S) <= self._context:
            raise DataError(f"input: needs 1 to {self._context} tokens, not {len(tokens_S)}: {source[:80]}")
        return tokens_S

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """int64 (N, context + 1): the source, and the token that begins its target."""
        begin_N1 = torch.full((len(samples), 1), self._tokenizer.size)
        return torch.cat([pad(samples, self._context), begin_N1], dim=1).to(device)

    def predict(
        self, model: nn.Module, inputs: Tensor, top: int | None = None, beam: int = 8, **_: Any
    ) -> list[dict[str, Any]]:
        """The likeliest `text` of beam search, its `probability`, and the `top` likeliest; see `beam_search`."""
        found_NBT, odds_NB = beam_search(cast(EncoderDecoder, model), inputs[:, : self._context], beam)
        answers = []
        for texts, odds in zip(found_NBT.tolist(), odds_NB.tolist(), strict=True):
            best = [
                {"text": self._tokenizer.decode([n for n in row if n >= 0]), "probability": math.exp(one)}
                for row, one in zip(texts, odds, strict=True)
                if one > -math.inf
            ]
            answers.append({**best[0], "top": best[:top]})
        return answers

    def format_rows(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        first = max(columns_of(escape_control(text)) for text in ("text", *sources))
        for number, (source, answer) in enumerate(answered):
            if number == 0:
                yield f"{'text':<{first}}  probability  becomes"
            shown, text = left(escape_control(source), first), escape_control(answer["text"])
            yield f"{shown}  {answer['probability']:>11.4f}  {text}"

    def axes(self) -> Mapping[int, Axis]:
        """The source always takes `context` places, and the target so far all that follow."""
        longest = 2 * self._context + 1
        return {1: Axis("time", longest, at_least=self._context + 1, at_most=longest)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        end = self._tokenizer.size
        *read, _ = token_steps(self._tokenizer.spec, None, strip=True)
        filled: Step = {"op": "pad_to", "length": self._context, "value": -1}
        begin: Step = {"op": "append_token", "token": end}
        again: Step = {"op": "generate", "from": "the logits of the last position", "append": "the token", "until": end}
        back: Step = {"op": "detokenize", "tokenizer": dict(self._tokenizer.spec)}
        batch: Step = {"op": "batch", "pad": -1, "dtype": "int64"}
        return {"preprocess": [*read, filled, begin, batch], "postprocess": [again, back]}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Sources of unequal length, and targets that have begun."""
        size, length = self._tokenizer.size, 2 * self._context + 1
        tokens_NX = torch.randint(size, (count, length), generator=generator)
        tokens_NX[:, self._context] = size
        lengths_N1 = torch.randint(1, self._context + 1, (count, 1), generator=generator)
        places_X = torch.arange(length)
        return tokens_NX.masked_fill((places_X >= lengths_N1) & (places_X < self._context), -1)
