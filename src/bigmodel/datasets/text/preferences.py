"""Pairs of a chosen and a rejected answer to the same prompt, as JSON lines, written by a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.datasets.text.messages import AnswerWriter, Messages, check_turns, read_lines, refuse_unread, with_roles
from bigmodel.formatting import format_count
from bigmodel.padding import pad

__all__ = ["preferences"]


def preferences(
    path: str,
    vocabulary: str | None,
    context: PositiveInt,
    val_fraction: ProperFraction,
    broken: Literal["refuse", "skip"] = "refuse",
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """Lines of JSON: `chosen` and `rejected`, each a text, a message or messages, that answer a `prompt`, a text or
    messages; or whole conversations without a prompt. The two differ in their last answer alone.

    Inputs are the tokens of both (N, T, 2), the chosen one first, and targets the next of each (N, T, 2), int64, -1
    where it is no part of that answer. What ends an answer, and which lines are broken: as for `conversations`.

    Raises:
        DataError: a file is missing, or has broken lines; or the vocabulary has no chat template.
    """
    writer = AnswerWriter.open(vocabulary, vocab_size, context)

    def write(record: Any) -> tuple[Tensor, Tensor]:
        written = [writer.write(messages, last_only=True) for messages in read_pair(record)]
        inputs, targets = (pad([one[index] for one in written]).T for index in (0, 1))
        return inputs, targets

    samples, notes = read_lines(Path(path), write, broken)
    inputs, targets = (pad([pair[index] for pair in samples]) for index in (0, 1))
    return TensorDataset(
        {"train": (inputs, targets)},
        properties={"vocab_size": writer.tokenizer.size},
        description=f"{format_count(len(samples), 'pair')} of answers, up to {inputs.shape[1]} tokens each",
        spec=writer.processor_spec,
        fingerprint=fingerprint_tensors([inputs, targets]),
        val_fraction=val_fraction,
        trim_padding=True,
        notes=notes,
    )


def read_pair(record: Any) -> tuple[Messages, Messages]:
    """Return the chosen and the rejected conversation of one line. ValueError says what is missing or wrong."""
    if not isinstance(record, Mapping) or not {"chosen", "rejected"} <= record.keys():
        raise ValueError("must hold chosen and rejected")
    refuse_unread(record)
    prompt = _messages("prompt", record.get("prompt", record.get("conversations", [])), "user")
    chosen, rejected = (_conversation(name, prompt, record[name]) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected must differ in their last answer alone")
    return chosen, rejected


def _conversation(name: str, prompt: Messages, given: Any) -> Messages:
    """Return the prompt with an answer. Where the answer is a whole conversation, the prompt must be in it."""
    messages = _messages(name, given, "assistant")
    is_whole = bool(messages) and messages[0]["role"] != "assistant"
    if is_whole and not all(one in messages for one in prompt):
        raise ValueError(f"{name}: does not hold the prompt")
    messages = messages if is_whole else prompt + messages
    try:
        check_turns(messages)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return messages


def _messages(name: str, given: Any, role: str) -> Messages:
    """Return the messages of a text, of a message or of several."""
    if isinstance(given, str):
        given = [{"role": role, "content": given}]
    given = [given] if isinstance(given, Mapping) else given
    if not isinstance(given, Sequence):
        raise ValueError(f"{name}: must be a text or messages")
    is_sharegpt = any(isinstance(one, Mapping) and "from" in one for one in given)
    try:
        return with_roles(given, *(("from", "value") if is_sharegpt else ("role", "content")))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
