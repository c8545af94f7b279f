"""Listener that shows, after each evaluation, how the model answers a few held-out conversations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.events import Evaluated
from bigmodel.formatting import cut, escape_control
from bigmodel.inference.processors.continuation import TextGenerationProcessor
from bigmodel.models.decoding.sampling import TextSampling
from bigmodel.runs.tolerant_json import parse_jsonl
from bigmodel.runtime.stdout import print_line
from bigmodel.runtime.terminal import terminal_size
from bigmodel.safe_files import append_to, read_bytes, write_text

__all__ = ["Answers"]

_LARGEST = 1 << 30  # bytes of the file
_LABELS = 8  # columns


class Answers:
    """Prints `count` prompts of the validation data with the data's answers and the model's most probable ones, of at
    most `max_new_tokens`; appends them to `answers.jsonl` in the run directory.

    Silent where the data holds no conversations, and where the model is divided among ranks.
    """

    def __init__(
        self, directory: Path, training_run: Any, count: PositiveInt = 3, max_new_tokens: PositiveInt = 64
    ) -> None:
        self._run = training_run
        self._file = directory / "answers.jsonl"
        self._sampling = TextSampling(temperature=0.0, max_new_tokens=max_new_tokens)
        self._count = count
        spec = {key: value for key, value in training_run.dataset.processor_spec().items() if key != "kind"}
        is_chat = spec.get("chat") is not None and training_run.device.parts == 1
        self._spec: dict[str, Any] | None = spec if is_chat and training_run.loader.splits.get("val") else None
        if self._spec is not None and self._file.exists():
            self._forget_after(training_run.state.step)

    def __call__(self, event: object) -> None:
        if self._spec is None or not isinstance(event, Evaluated) or event.split != "val":
            return
        tokenizer = tokenizer_from_spec(self._spec["tokenizer"])
        asked = list(_held_out(self._run.loader, self._count))
        answers = self._answer([prompt for prompt, _ in asked])
        texts = [[tokenizer.decode(part.tolist()) for part in pair] for pair in asked]
        rows = [
            {"prompt": prompt, "expected": expected, "answer": answer}
            for (prompt, expected), answer in zip(texts, answers, strict=True)
        ]
        with append_to(self._file) as stream:
            stream.writelines(json.dumps({"step": event.step, **row}) + "\n" for row in rows)
        for row in rows:
            for name, text in row.items():
                print_line(_line(name, text))

    def close(self) -> None:
        """Nothing is held open."""

    def _answer(self, prompts: list[Tensor]) -> list[str]:
        run, processor = self._run, TextGenerationProcessor(**(self._spec or {}))
        inputs = processor.collate(prompts, run.device.torch_device)
        model = run.state.result_module.eval()
        with torch.inference_mode(), run.device.autocast():
            found = processor.predict(model, inputs, TextGenerationProcessor.Options(self._sampling))
        return [str(one["text"]) for one in found]

    def _forget_after(self, step: int) -> None:
        """Leave out what evaluations said that a resumed run makes again."""
        lines = read_bytes(self._file, _LARGEST).splitlines()
        kept = [one for one in parse_jsonl(lines) if isinstance(one.get("step"), int) and one["step"] <= step]
        write_text(self._file, "".join(json.dumps(one) + "\n" for one in kept))


def _held_out(loader: Any, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the first conversations of the validation data up to their last answer, and that answer, as tokens."""
    left = count
    for batch in loader.eval_batches("val"):
        for inputs, targets in zip(batch.inputs.cpu(), batch.targets.cpu(), strict=True):
            for tokens_T, targets_T in _texts(inputs, targets):
                last = int((targets_T >= 0).nonzero()[-1])
                before = (targets_T[:last] < 0).nonzero()
                first = 1 + int(before[-1]) if len(before) else 0
                yield tokens_T[: first + 1], targets_T[first : last + 1]
                left -= 1
                if not left:
                    return


def _texts(inputs: Tensor, targets_T: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the conversations of one sample, which may be a row of several."""
    if inputs.ndim == 1:
        length = int((inputs >= 0).sum())
        return [(inputs[:length], targets_T[:length])]
    begins = (inputs[:, 1] == 0).nonzero()[:, 0].tolist()
    ends = [*begins[1:], int((inputs[:, 1] >= 0).sum())]
    return [(inputs[a:b, 0], targets_T[a:b]) for a, b in zip(begins, ends, strict=True)]


def _line(name: str, text: str) -> str:
    """Return a text as one line of the terminal; of a prompt its end."""
    room = terminal_size()[0] - _LABELS - 3
    shown = escape_control(text.strip())
    shown = cut(shown[::-1], room)[::-1] if name == "prompt" else cut(shown, room)
    return f"{name:>{_LABELS}}  {shown}"
