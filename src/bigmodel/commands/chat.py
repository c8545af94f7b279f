"""`bigmodel-predict chat=true` and `stream=true`: text that is printed as it is generated, in turns or alone."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import escape_control, json_line
from bigmodel.inference.predictor import Predictor

_PROMPT = "> "


class AnswersMessages(Protocol):
    """A conversation with a model."""

    def answer(self, text: str, sampling: Any) -> Iterator[str]:
        """Add a message, and yield the model's answer in pieces as they come. DataError where there can be none."""


@runtime_checkable
class HoldsConversations(Protocol):
    """A `Processor` of language models, of which those with `has_chat` hold conversations."""

    has_chat: bool

    def open_conversation(self, model: nn.Module) -> AnswersMessages:
        """Return a conversation without messages."""


@runtime_checkable
class StreamsText(Protocol):
    """A `Processor` of models that generate text."""

    def stream(self, model: nn.Module, sample: Tensor, options: Any) -> Iterator[str]:
        """Yield the text that continues a sample, in pieces as they come."""


def print_stream(predictor: Predictor, given: str, options: Any, as_json: bool) -> None:
    """Print one text as it is generated, behind its prompt.

    Raises:
        ConfigError: the run's model generates no text, there are several inputs, or JSON is to be printed.
    """
    processor = predictor.processor
    if not isinstance(processor, StreamsText):
        raise ConfigError("stream: this run's model generates no text; set stream=false")
    sources = list(itertools.islice(processor.list_inputs(given), 2))
    if len(sources) > 1 or as_json:
        raise ConfigError("stream: prints one text as it comes; give one input and format=table, or set stream=false")
    sample = processor.load(sources[0])
    with predictor.device.autocast(), torch.inference_mode():
        _print_pieces(itertools.chain(sources, processor.stream(predictor.model, sample, options)))


def talk(predictor: Predictor, given: str | None, options: Any, as_json: bool) -> None:
    """Answer one message, `given`, or each line of standard input until it ends; answers appear as they are made.

    Raises:
        ConfigError: the run's model has no chat template.
        DataError: the template refuses a message, or the conversation is longer than the model's context.
    """
    processor = predictor.processor
    if not isinstance(processor, HoldsConversations) or not processor.has_chat:
        raise ConfigError("chat: this run's model has no chat template; leave chat out, or load weights with one")
    conversation = processor.open_conversation(predictor.model)
    for text in _messages() if given is None else (given,):
        with predictor.device.autocast(), torch.inference_mode():
            _print_answer(text, conversation.answer(text, options.sample), as_json)


def _print_answer(text: str, pieces: Iterator[str], as_json: bool) -> None:
    if as_json:
        print(json_line({"input": text, "text": "".join(pieces)}, sys.stdout.encoding), flush=True)
        return
    _print_pieces(pieces)


def _print_pieces(pieces: Iterator[str]) -> None:
    """Print a text as it comes; control codes are shown, not sent."""
    for piece in pieces:
        print("\n".join(map(escape_control, piece.split("\n"))), end="", flush=True)
    print(flush=True)


def _messages() -> Iterator[str]:
    """Yield lines that are typed, or those of a pipe; empty ones are left out."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives `input` a line to edit

        print("empty line or Ctrl-D: end", file=sys.stderr)
    while True:
        try:
            line = input(_PROMPT if is_terminal else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise DataError(f"input: not text in UTF-8 ({error})") from error
        if line:
            yield line
        elif is_terminal:
            return
