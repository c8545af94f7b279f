"""Sound files, and the texts that are spoken in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.wav import SUFFIXES, read_wav
from bigmodel.formatting import columns_of, escape_control, left
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.steps import Step, sound_steps
from bigmodel.inference.processors.waves import to_wave
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.ctc import beam_search, greedy_decode
from bigmodel.padding import pad
from bigmodel.tasks.ctc import to_text

__all__ = ["SpeechRecognitionProcessor"]

_EXAMPLE_FRAMES = 100


class SpeechRecognitionProcessor:
    """The `Processor` of models that transcribe: the answer to a clip is its likeliest text by prefix beam search over
    `characters`, that of greedy decoding, and the `top` likeliest texts with their probabilities.

    Raises:
        ValueError: there are no characters.
    """

    def __init__(self, characters: str, features: LogMel) -> None:
        if not characters:
            raise ValueError("characters: there are none")
        self._characters, self._features = characters, features

    def list_inputs(self, given: str) -> Iterable[str]:
        return list_files(given, SUFFIXES, "sound file")

    def load(self, source: str) -> Tensor:
        """float32 (T, mels)."""
        return self._features(read_wav(source, self._features.rate))

    def convert(self, value: object) -> Tensor:
        """The same of a pair (samples, rate): see `to_wave`."""
        return self._features(to_wave(value, self._features.rate))

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        return pad(samples).to(device)

    def predict(
        self, model: nn.Module, inputs: Tensor, top: int | None = None, beam: int = 8, **_: Any
    ) -> list[dict[str, Any]]:
        logits_NTC = model(inputs).float()
        plain = [to_text(row, self._characters) for row in greedy_decode(logits_NTC).tolist()]
        answers = []
        for clip_TC, text in zip(logits_NTC.log_softmax(2).cpu(), plain, strict=True):
            found = beam_search(clip_TC, max(beam, top or 0))
            best = [{"text": to_text(row, self._characters), "probability": math.exp(odds)} for row, odds in found]
            answers.append({**best[0], "greedy": text, "top": best[:top]})
        return answers

    def format_rows(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        first = max(columns_of(escape_control(text)) for text in ("file", *sources))
        for number, (source, answer) in enumerate(answered):
            if number == 0:
                yield f"{'file':<{first}}  probability  text"
            shown, text = left(escape_control(source), first), escape_control(answer["text"])
            yield f"{shown}  {answer['probability']:>11.4f}  {text}"

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", None)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        batch: Step = {"op": "batch", "layout": "NTM", "pad": "nan", "dtype": "float32"}
        spell: Step = {"op": "ctc_greedy", "axis": 2, "blank": 0, "characters": self._characters}
        return {"preprocess": [*sound_steps(self._features), batch], "postprocess": [spell]}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, _EXAMPLE_FRAMES, self._features.mels, generator=generator)
