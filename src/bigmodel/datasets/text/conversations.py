"""Conversations or instructions as JSON lines, written by a chat template; the answers alone are targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.files.json_values import parse_json
from bigmodel.datasets.files.locations import find_beside_shared
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.datasets.text.chat_template import ChatTemplate
from bigmodel.datasets.text.tokenizers import Tokenizer, load_vocabulary
from bigmodel.errors import DataError
from bigmodel.formatting import format_count
from bigmodel.padding import pad
from bigmodel.safe_files import read_bytes

__all__ = ["conversations"]

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
_LARGEST = 1 << 31  # bytes of a file
_UNREAD = ("system", "history", "tools", "functions", "images", "videos", "audios")  # of a record, beside its messages
_SHOWN = 5  # broken lines
_KIND = "bigmodel.inference.processors.continuation.TextGenerationProcessor"

Messages = list[dict[str, str]]


def conversations(
    path: str,
    vocabulary: str | None,
    context: PositiveInt,
    val_fraction: ProperFraction,
    broken: Literal["refuse", "skip"] = "refuse",
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """Lines of JSON: `messages` of `role` and `content`; `conversations` of `from` and `value` (sharegpt); or
    `instruction`, `input` and `output` (alpaca).

    Inputs are tokens (N, T) and targets the next of each (N, T), int64, -1 where it is no part of an answer. An answer
    ends with a token that stops it, which is a target too; what the template writes before it is none. Lines that are
    `broken` or longer than `context` tokens are refused, or skipped and counted.

    Raises:
        DataError: a file is missing, or has broken lines; or the vocabulary has no chat template.
    """
    found = None if vocabulary is None else load_vocabulary(find_beside_shared(vocabulary), vocab_size)
    tokenizer, chat = (None, None) if found is None else found
    if tokenizer is None or chat is None:
        where = "; load open weights by init.from" if vocabulary is None else f" in '{vocabulary}'"
        raise DataError(f"dataset.vocabulary: there is no tokenizer with a chat template{where}")
    check_claims({"vocab_size": vocab_size}, {"vocab_size": tokenizer.size})
    writer = _Writer(tokenizer, ChatTemplate(chat["template"], chat["special"]), frozenset(chat["stop"]), context)
    samples, notes = _read(Path(path), writer, broken)
    inputs, targets = (pad([pair[index] for pair in samples]) for index in (0, 1))
    answers = format_count(int((targets >= 0).sum()), "token")
    return TensorDataset(
        {"train": (inputs, targets)},
        properties={"vocab_size": tokenizer.size},
        description=f"{format_count(len(samples), 'conversation')}, {answers} of answers, "
        f"up to {inputs.shape[1]} a sample",
        spec={"kind": _KIND, "tokenizer": dict(tokenizer.spec), "context": context, "chat": chat},
        fingerprint=fingerprint_tensors([inputs, targets]),
        val_fraction=val_fraction,
        trim_padding=True,
        notes=notes,
    )


def _read(file: Path, writer: _Writer, broken: str) -> tuple[list[tuple[Tensor, Tensor]], list[str]]:
    samples, faults = [], []
    try:
        lines = read_bytes(file, _LARGEST).split(b"\n")
    except OSError as error:
        raise DataError(f"dataset.path: {file}: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            samples.append(writer.write(_messages(parse_json(line.decode("utf-8-sig")))))
        except (ValueError, RecursionError) as error:
            faults.append(f"{file}:{number}: {error}")
        except DataError as error:
            faults.append(f"{file}:{number}: {error.lines[0]}")
    if faults and broken == "refuse":
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError(*faults[:_SHOWN], *more, "dataset.broken=skip leaves such lines out")
    if not samples:
        raise DataError(f"{file}: holds no conversation", *faults[:_SHOWN])
    return samples, [f"{format_count(len(faults), 'line')} left out, as {faults[0]}"] if faults else []


def _messages(record: Any) -> Messages:
    """Return the messages of one line in any of the shapes. ValueError says what is missing or out of order."""
    match record:
        case {"messages": list(given)}:
            keys = "role", "content"
        case {"conversations": list(given)}:
            keys = "from", "value"
        case {"instruction": str(instruction), "output": str(output), **rest}:
            more = rest.get("input") or ""
            keys = "role", "content"
            asked = f"{instruction}\n\n{more}" if more else instruction
            given = [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]
        case _:
            raise ValueError("must hold messages, conversations, or instruction and output")
    if (unread := next((key for key in _UNREAD if record.get(key)), None)) is not None:
        raise ValueError(f"has '{unread}', which is not read here; write it into the messages, or take it out")
    messages = []
    for number, one in enumerate(given, 1):
        role, content = (one.get(key) if isinstance(one, Mapping) else None for key in keys)
        if role not in _ROLES or not isinstance(content, str):
            raise ValueError(f"message {number}: needs {keys[0]} ({', '.join(_ROLES)}) and {keys[1]}")
        if not content.strip():
            raise ValueError(f"message {number} ({role}): is empty")
        if one.get("weight") not in (None, 1) or one.get("tool_calls"):
            unread = "tool_calls" if one.get("tool_calls") else "weight"
            raise ValueError(f"message {number} ({role}): has '{unread}', which is not read here")
        messages.append({"role": _ROLES[role], "content": content})
    spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
    wrong = next((n for n, one in enumerate(spoken) if one["role"] != ("user", "assistant")[n % 2]), None)
    if wrong is not None:
        place = wrong + 1 + len(messages) - len(spoken)
        raise ValueError(f"message {place} ({spoken[wrong]['role']}): out of order; user and assistant take turns")
    if len(spoken) < 2 or len(spoken) % 2:
        raise ValueError("has no answer at its end")
    return messages


@dataclass(frozen=True)
class _Writer:
    """Turns messages into tokens and targets."""

    tokenizer: Tokenizer
    template: ChatTemplate
    stop: frozenset[int]
    context: int

    def write(self, messages: Messages) -> tuple[Tensor, Tensor]:
        """Return tokens (T,), and for each the next one where that is part of an answer, else -1.

        Raises:
            DataError: the template refuses the messages.
            ValueError: there are too many tokens, or no token ends an answer.
        """
        tokens: list[int] = []
        is_answer: list[bool] = []
        for text, answered in self._parts(messages):
            part = self.tokenizer.encode(text).tolist()
            end = max((n for n, token in enumerate(part, 1) if token in self.stop), default=0) if answered else 0
            if answered and not end:
                raise ValueError("the template ends an answer with no token that stops one")
            tokens += part
            is_answer += [n < end for n in range(len(part))]
        if len(tokens) > self.context:
            raise ValueError(f"has {len(tokens)} tokens, more than context={self.context}")
        if all(is_answer) or not any(is_answer):
            raise ValueError("all of it would be an answer, or nothing")
        inputs = torch.tensor(tokens[:-1])
        return inputs, torch.tensor(tokens[1:]).masked_fill(~torch.tensor(is_answer[1:]), -1)

    def _parts(self, messages: Messages) -> Iterator[tuple[str, bool]]:
        """Yield the text in parts: up to an answer, the answer, and so on; and whether each is an answer.

        Each begins where it does when the model is asked, so that its tokens are those that it will see then.
        """
        whole = self.template.render(messages)
        written = 0
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                asked = self.template.render(messages[:number], answer_next=True)
                answered = self.template.render(messages[: number + 1])
                if not (whole.startswith(answered) and answered.startswith(asked) and written <= len(asked)):
                    raise ValueError(f"message {number + 1}: the template writes it otherwise once others follow")
                yield whole[written : len(asked)], False
                yield whole[len(asked) : len(answered)], True
                written = len(answered)
        if written < len(whole):
            yield whole[written:], False
