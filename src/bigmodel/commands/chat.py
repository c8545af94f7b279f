"""`bigmodel-predict chat=true`: talk with a language model in the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import escape_control, json_line
from bigmodel.inference.predictor import Predictor
from bigmodel.interfaces import HoldsConversations

_PROMPT = "> "


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
        pieces = predictor.stream(conversation.answer(text, options.sample))
        if as_json:
            print(json_line({"input": text, "text": "".join(pieces)}, sys.stdout.encoding), flush=True)
            continue
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
