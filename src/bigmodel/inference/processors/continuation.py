"""Generate text that continues a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.formatting import escape_control
from bigmodel.inference.processors.conversation import Conversation, check_chat
from bigmodel.inference.processors.files import read_text
from bigmodel.inference.processors.steps import Step, token_steps
from bigmodel.inference.processors.text_stream import TextStream
from bigmodel.inference.processors.texts import TextInputs
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.generation import Decoder, ReadsPackedRows, as_decoder, iterate_tokens
from bigmodel.models.decoding.sampling import TextSampling
from bigmodel.padding import pad

__all__ = ["TextGenerationProcessor"]

_MAX_CONTEXT = 1 << 20  # tokens
_LINES = ".jsonl"
_START = "\n"  # stands for an empty prompt: every text dataset contains this character


class TextGenerationProcessor:
    """`Processor` of language models. `input` is a text, a file that holds one, or `-` for standard input; a file of
    JSON lines holds several, each a text or its `prompt`.

    `chat` holds the `template` of a model that holds conversations, `special` tokens by name, and `stop`: the tokens
    that end a text.

    Raises:
        ValueError: the tokenizer's spec is invalid, or `context` is longer than any memory holds.
    """

    reads_texts = True  # in Python, a `str` that names no file is one text

    @dataclass(frozen=True)
    class Options:
        """Prediction options of language models."""

        sample: TextSampling = field(default_factory=TextSampling)

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
        encoding: str | None = None,
        chat: Mapping[str, Any] | None = None,
    ) -> None:
        if context > _MAX_CONTEXT:
            raise ValueError(f"context: must be at most {_MAX_CONTEXT} tokens, got {context}")
        self._tokenizer = tokenizer_from_spec(tokenizer)
        self._context = context
        self._template, self._stop = check_chat(chat, self._tokenizer.size)
        self.texts = TextInputs(encoding=encoding)

    @property
    def has_chat(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    def open_conversation(self, model: nn.Module) -> Conversation:
        """Return a conversation without messages. ValueError without a chat template."""
        if self._template is None:
            raise ValueError("chat: this model has no template")
        return Conversation(model, self._tokenizer, self._template, self._stop)

    def list_inputs(self, given: str) -> Sequence[str]:
        if given.endswith(_LINES) and Path(given).is_file():
            return _read_prompts(given)
        return [self.texts.read_whole(given)]

    @property
    def notes(self) -> Sequence[str]:
        """Parts of the last input that were ignored, one line each."""
        return self.texts.notes

    def load(self, source: str) -> Tensor:
        """Tokenize a prompt: int64 (T,)."""
        return torch.from_numpy(self._tokenizer.encode(source or _START))

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """Pad prompts with -1: int64 (N, T)."""
        return pad(samples).to(device)

    def predict(self, model: nn.Module, inputs: Tensor, options: Options) -> list[dict[str, Any]]:
        """Return for each prompt the `text` that continues it and its number of `tokens`, as if it were alone."""
        decoder, sampling = as_decoder(model), options.sample
        prompts = [padded_T[padded_T >= 0] for padded_T in inputs]
        streams = [TextStream(self._tokenizer, self._stop, sampling.stops) for _ in prompts]
        for rows in _batches(decoder, [len(one) + sampling.max_new_tokens for one in prompts]):
            longest = max(len(prompts[row]) for row in rows)
            tokens_NT = torch.stack([F.pad(prompts[row], (longest - len(prompts[row]), 0), value=-1) for row in rows])
            for token_N in islice(iterate_tokens(decoder, tokens_NT, sampling.choose), sampling.max_new_tokens):
                for row, token in zip(rows, token_N.tolist(), strict=True):
                    streams[row].add(token)
                if all(streams[row].has_ended for row in rows):
                    break
        for one in streams:
            one.close()
        return [{"text": one.text, "tokens": len(one.tokens)} for one in streams]

    def stream(self, model: nn.Module, sample: Tensor, options: Options) -> Iterator[str]:
        """Yield the text that continues a prompt, in pieces as they come."""
        sampling = options.sample
        text = TextStream(self._tokenizer, self._stop, sampling.stops)
        prompt_1T = sample[None].to(next(model.parameters()).device)
        for token_N in islice(iterate_tokens(as_decoder(model), prompt_1T, sampling.choose), sampling.max_new_tokens):
            yield text.add(int(token_N))
            if text.has_ended:
                break
        yield text.close()

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        """Yield the lines of each prompt and its continuation."""
        for source, prediction in predictions:
            yield from (escape_control(line) for line in (source + prediction["text"]).split("\n"))

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", self._context, at_most=self._context)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        *read, batch = token_steps(self._tokenizer.spec, None, strip=False)
        last: Step = {"op": "keep_last", "length": self._context}
        generate_tokens: Step = {
            "op": "generate",
            "from": "the logits of the last position",
            "append": "the token drawn",
        }
        detokenize: Step = {"op": "detokenize", "tokenizer": dict(self._tokenizer.spec)}
        return {
            "preprocess": [*read, last, batch],
            "postprocess": [generate_tokens, {"op": "softmax", "axis": 2}, detokenize],
        }

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self._tokenizer.size, (count, self._context), generator=generator)


def _batches(decoder: Decoder, totals: Sequence[int]) -> Iterator[list[int]]:
    """Yield rows to continue at once, of which none outgrows the context; others are alone."""
    reads_padded = isinstance(decoder, ReadsPackedRows) and decoder.reads_packed_rows
    together = [row for row, total in enumerate(totals) if reads_padded and total <= decoder.context]
    if together:
        yield together
    yield from ([row] for row in range(len(totals)) if row not in together)


def _read_prompts(file: str) -> list[str]:
    """Return the prompts of a file of JSON lines. DataError names a line that holds none."""
    prompts = []
    for number, line in enumerate(read_text(file, None).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"input: {file}:{number}: {error}") from error
        prompt = found.get("prompt") if isinstance(found, Mapping) else found
        if not isinstance(prompt, str):
            raise DataError(f"input: {file}:{number}: must be a text, or hold one as prompt")
        prompts.append(prompt)
    if not prompts:
        raise DataError(f"input: {file}: holds no prompt")
    return prompts
