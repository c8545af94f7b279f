"""Write conversations as the text that a model was trained on, by the chat template that came with its vocabulary.

A template is a program in jinja2's language, and may be a stranger's: see `render_template`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.errors import DataError

Message = Mapping[str, Any]

_SCRIPT = Path(__file__).with_name("render_template.py")
_CPU_S = 2  # for one conversation; templates take milliseconds
_LARGEST = 1 << 22  # characters of one conversation


class ChatTemplate:
    """A chat template with the special tokens that it may write. Rendering starts a process, which stays for the next.

    Raises:
        ValueError: `special` holds something else than texts.
    """

    def __init__(self, template: str, special: Mapping[str, str]) -> None:
        if not all(isinstance(text, str) for pair in special.items() for text in pair):
            raise ValueError("chat: its special tokens must be texts")
        self._template = template
        self._special = dict(special)
        self._process: subprocess.Popen[str] | None = None

    def render(self, messages: Sequence[Message], *, answer_next: bool = False) -> str:
        """Render messages, each with `role` and `content`; with `answer_next` up to where the model's answer begins.

        Raises:
            DataError: the template refuses the messages, which names the first it refuses, or exceeds its limits.
        """
        try:
            return self._render(messages, answer_next)
        except ValueError as error:
            for count in range(1, len(messages)):
                try:
                    self._render(messages[:count], answer_next=False)
                except ValueError as refused:
                    role = messages[count - 1].get("role")
                    raise DataError(f"chat template: message {count} ({role}): {refused}") from error
            raise DataError(f"chat template: {error}") from error

    def _render(self, messages: Sequence[Message], answer_next: bool) -> str:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        variables = {"messages": messages, "add_generation_prompt": answer_next, "tools": None, "documents": None}
        request = json.dumps({"template": self._template, "variables": self._special | variables})
        try:
            process.stdin.write(f"{request}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            process.wait()
            raise ValueError(f"was stopped: it takes more than {_CPU_S} s of processor time, or too much memory")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return str(answer["text"])

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            # -P: no module in the current directory may replace jinja2
            command = [sys.executable, "-P", str(_SCRIPT), str(_CPU_S), str(_LARGEST)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
            )
            weakref.finalize(self, _end, process)
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise ValueError("needs jinja2; pip install jinja2")
            self._process = process
        return self._process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # a process that was stopped has not read all
                stream.close()
