"""Lines of conversations, read and written by a chat template as tokens, of which the answers are targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from bigmodel.datasets.files.json_values import parse_json
from bigmodel.datasets.files.locations import find_beside_shared
from bigmodel.datasets.files.table_files import describe_skipped_rows
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.text.chat_template import ChatTemplate
from bigmodel.datasets.text.tokenizers import Tokenizer, load_vocabulary
from bigmodel.errors import DataError
from bigmodel.safe_files import read_bytes

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
_LARGEST = 1 << 31  # bytes of a file
_UNREAD = ("system", "history", "tools", "functions", "images", "videos", "audios")  # of a record, beside its messages
_SHOWN = 5  # broken lines
_KIND = "bigmodel.inference.processors.continuation.TextGenerationProcessor"

Messages = list[dict[str, str]]
_Sample = TypeVar("_Sample")


def read_lines(
    file: Path, write: Callable[[Any], _Sample], broken: Literal["refuse", "skip"]
) -> tuple[list[_Sample], list[str]]:
    """Return what `write` makes of each line of JSON, and lines about those that are left out.

    Raises:
        DataError: the file is missing or holds nothing, or lines are broken, which are named.
    """
    samples, faults = list[_Sample](), []
    try:
        lines = read_bytes(file, _LARGEST).split(b"\n")
    except OSError as error:
        raise DataError(f"dataset.path: {file}: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            samples.append(write(parse_json(line.decode("utf-8-sig"))))
        except (ValueError, RecursionError) as error:
            faults.append(f"{file}:{number}: {error}")
        except DataError as error:
            faults.append(f"{file}:{number}: {error.lines[0]}")
    if faults and broken == "refuse":
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError(*faults[:_SHOWN], *more, "dataset.broken=skip leaves such lines out")
    if not samples:
        raise DataError(f"{file}: holds no conversation", *faults[:_SHOWN])
    return samples, [describe_skipped_rows(faults, file)] if faults else []


def read_messages(record: Any) -> Messages:
    """Return the messages of one line in any of the shapes. ValueError says what is missing or out of order."""
    match record:
        case {"instruction": str(), "instances": list(instances)}:  # self-instruct
            if len(instances) != 1 or not isinstance(instances[0], Mapping) or "instances" in instances[0]:
                raise ValueError(f"instances: got {len(instances)}, but a line is for one; write a line for each")
            return read_messages({**instances[0], "instruction": record["instruction"]})
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
    refuse_unread(record)
    messages = with_roles(given, *keys)
    check_turns(messages)
    return messages


def refuse_unread(record: Mapping[str, Any]) -> None:
    """Raise ValueError where a record has more that a conversation is made of than its messages."""
    if (unread := next((key for key in _UNREAD if record.get(key)), None)) is not None:
        raise ValueError(f"has '{unread}', which is not read here; write it into the messages, or take it out")


def with_roles(given: Sequence[Any], role_key: str = "role", content_key: str = "content") -> Messages:
    """Return messages with the usual roles. ValueError names one that lacks its role or content."""
    messages = []
    for number, one in enumerate(given, 1):
        role, content = (one.get(key) if isinstance(one, Mapping) else None for key in (role_key, content_key))
        if role not in _ROLES or not isinstance(content, str):
            raise ValueError(f"message {number}: needs {role_key} ({', '.join(_ROLES)}) and {content_key}")
        if not content.strip():
            raise ValueError(f"message {number} ({role}): is empty")
        if one.get("weight") not in (None, 1) or one.get("tool_calls"):
            unread = "tool_calls" if one.get("tool_calls") else "weight"
            raise ValueError(f"message {number} ({role}): has '{unread}', which is not read here")
        messages.append({"role": _ROLES[role], "content": content})
    return messages


def check_turns(messages: Messages) -> None:
    """Raise ValueError unless user and assistant take turns, after a system message at most, and end with an answer."""
    spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
    wrong = next((n for n, one in enumerate(spoken) if one["role"] != ("user", "assistant")[n % 2]), None)
    if wrong is not None:
        place = wrong + 1 + len(messages) - len(spoken)
        raise ValueError(f"message {place} ({spoken[wrong]['role']}): out of order; user and assistant take turns")
    if len(spoken) < 2 or len(spoken) % 2:
        raise ValueError("has no answer at its end")


@dataclass(frozen=True)
class AnswerWriter:
    """Turns messages into tokens and targets, by the chat template of a vocabulary."""

    tokenizer: Tokenizer
    template: ChatTemplate
    chat: Mapping[str, Any]
    context: int

    @classmethod
    def open(cls, vocabulary: str | None, vocab_size: int | None, context: int) -> AnswerWriter:
        """Load a vocabulary of `vocab_size` tokens. DataError where it has no chat template."""
        found = None if vocabulary is None else load_vocabulary(find_beside_shared(vocabulary), vocab_size)
        tokenizer, chat = (None, None) if found is None else found
        if tokenizer is None or chat is None:
            where = "; load open weights by init.from" if vocabulary is None else f" in '{vocabulary}'"
            raise DataError(f"dataset.vocabulary: there is no tokenizer with a chat template{where}")
        check_claims({"vocab_size": vocab_size}, {"vocab_size": tokenizer.size})
        return cls(tokenizer, ChatTemplate(chat["template"], chat["special"]), chat, context)

    @property
    def processor_spec(self) -> Mapping[str, Any]:
        """What a checkpoint carries, to answer by the same template."""
        return {"kind": _KIND, "tokenizer": dict(self.tokenizer.spec), "context": self.context, "chat": self.chat}

    def write(self, messages: Messages, last_only: bool = False) -> tuple[Tensor, Tensor]:
        """Return tokens (T,), and for each the next one where that is part of an answer, else -1.

        With `last_only` no answer but the last is a target.

        Raises:
            DataError: the template refuses the messages.
            ValueError: there are too many tokens, or no token ends an answer.
        """
        stop = frozenset(self.chat["stop"])
        tokens: list[int] = []
        is_answer: list[bool] = []
        for text, answered in self._parts(messages):
            part = self.tokenizer.encode(text).tolist()
            end = max((n for n, token in enumerate(part, 1) if token in stop), default=0) if answered else 0
            if answered and not end:
                raise ValueError("the chat template ends an answer without an end-of-turn token")
            tokens += part
            is_answer = [False] * len(is_answer) if answered and last_only else is_answer
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
