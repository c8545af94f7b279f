"""Talk with a language model by the chat template that came with its vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from bigmodel.datasets.text.chat_template import ChatTemplate
from bigmodel.datasets.text.tokenizers import Tokenizer
from bigmodel.errors import DataError
from bigmodel.inference.processors.text_stream import TextStream
from bigmodel.models.decoding.generation import as_decoder, iterate_tokens
from bigmodel.models.decoding.sampling import TextSampling


class Conversation:
    """A conversation with a model: its messages, and a key/value cache of their tokens."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, template: ChatTemplate, stop: Sequence[int]) -> None:
        self.messages: list[dict[str, str]] = []
        self._decoder = as_decoder(model)
        self._device = next(model.parameters()).device
        self._tokenizer = tokenizer
        self._template = template
        self._stop = frozenset(stop)
        self._cache = self._decoder.cache(1)
        self._cached: list[int] = []  # tokens that the cache holds

    def answer(self, text: str, sampling: TextSampling) -> Iterator[str]:
        """Add a message of the user, and yield the model's answer in pieces as they come.

        Raises:
            DataError: the template refuses the messages, or they leave no room for an answer.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        tokens = self._tokenizer.encode(self._template.render(messages, answer_next=True)).tolist()
        room = self._decoder.context - len(tokens)
        if room < 1:
            raise DataError(f"input: the conversation has {len(tokens)} tokens, {self._decoder.context} are the most")
        known = _common_prefix(self._cached, tokens[:-1])
        self._cache.truncate(known)
        answer = TextStream(self._tokenizer, self._stop, sampling.stops)
        for token in islice(self._tokens(tokens, known, sampling), min(room, sampling.max_new_tokens)):
            yield answer.add(token)
            if answer.has_ended:
                break
        yield answer.close()
        self.messages = [*messages, {"role": "assistant", "content": answer.text}]

    def _tokens(self, tokens: Sequence[int], known: int, sampling: TextSampling) -> Iterator[int]:
        prompt_1T = torch.tensor([tokens], device=self._device)
        self._cached = list(tokens)
        for token_N in iterate_tokens(self._decoder, prompt_1T, sampling.choose, cache=self._cache, known=known):
            token = int(token_N)
            yield token
            self._cached.append(token)  # computed when the next one is asked for


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def check_chat(chat: Mapping[str, Any] | None, size: int) -> tuple[ChatTemplate | None, list[int]]:
    """Return the template of a checkpoint's `chat`, and the tokens that end an answer. ValueError if it is damaged."""
    match chat:
        case None:
            return None, []
        case {"template": str(template), "special": Mapping() as special, "stop": list(stop) | tuple(stop)} if all(
            isinstance(token, int) and 0 <= token < size for token in stop
        ):
            return ChatTemplate(template, dict(special)), list(stop)
    raise ValueError("chat: must hold a template, special tokens, and numbers of tokens as stop")
