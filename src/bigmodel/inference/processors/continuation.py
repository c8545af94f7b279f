"""Generate text that continues a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.formatting import escape_control
from bigmodel.inference.processors.conversation import Conversation, check_chat
from bigmodel.inference.processors.steps import Step, token_steps
from bigmodel.inference.processors.texts import TextInputs
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.generation import as_decoder, generate
from bigmodel.models.decoding.sampling import TextSampling
from bigmodel.padding import pad

__all__ = ["TextGenerationProcessor"]

_MAX_CONTEXT = 1 << 20  # tokens
_START = "\n"  # stands for an empty prompt: every text dataset contains this character


class TextGenerationProcessor:
    """`Processor` of language models. `input` is a text, a file that holds one, or `-` for standard input.

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
        """Return for each prompt the `text` that continues it and its number of `tokens`."""
        sampling = options.sample
        decoder = as_decoder(model)
        predictions = []
        for padded_T in inputs:
            prompt_1T = padded_T[padded_T >= 0][None]
            made_1T = generate(decoder, prompt_1T, sampling.max_new_tokens, sampling.choose, stop=self._stop)
            tokens = [token for token in made_1T[0].tolist() if token not in self._stop]
            predictions.append({"text": self._tokenizer.decode(tokens), "tokens": len(tokens)})
        return predictions

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
