"""Transcribe sound files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.wav import SUFFIXES, read_wav
from bigmodel.formatting import columns_of, escape_control, left
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.steps import Step, sound_steps
from bigmodel.inference.processors.waves import to_wave
from bigmodel.inference.shown import Shown, spectrogram_picture
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.ctc import beam_search, greedy_decode
from bigmodel.padding import pad
from bigmodel.tasks.ctc import to_text

__all__ = ["SpeechRecognitionProcessor"]

_EXAMPLE_FRAMES = 100


class SpeechRecognitionProcessor:
    """`Processor` of CTC models over `characters`.

    Raises:
        ValueError: `characters` is empty.
    """

    @dataclass(frozen=True)
    class Options:
        """Prediction options of CTC models."""

        top: PositiveInt | None = 3  # texts to list for each clip; None: all that the search kept
        beam: PositiveInt = 8  # prefixes kept in the search

    def __init__(self, characters: str, features: LogMel) -> None:
        if not characters:
            raise ValueError("characters: must not be empty")
        self._characters = characters
        self._features = features

    def list_inputs(self, given: str) -> Iterable[str]:
        return list_files(given, SUFFIXES, "sound file")

    def load(self, source: str) -> Tensor:
        """Read a wav file as log-mel frames, float32 (T, mels)."""
        return self._features(read_wav(source, self._features.rate))

    def convert(self, value: object) -> Tensor:
        """Convert a pair (samples, rate) to log-mel frames: see `to_wave`."""
        return self._features(to_wave(value, self._features.rate))

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        return pad(samples).to(device)

    def show(self, inputs: Tensor) -> Shown:
        return Shown(picture=spectrogram_picture(inputs))

    def predict(self, model: nn.Module, inputs: Tensor, options: Options) -> list[dict[str, Any]]:
        """Return for each clip the most probable text by prefix beam search, the greedy text, and the `top` texts."""
        logits_NTC = model(inputs).float()
        greedy = [to_text(row, self._characters) for row in greedy_decode(logits_NTC).tolist()]
        width = max(options.beam, options.top or 0)
        predictions = []
        for log_probs_TC, text in zip(logits_NTC.log_softmax(2).cpu(), greedy, strict=True):
            ranked = [
                {"text": to_text(classes, self._characters), "probability": math.exp(log_prob)}
                for classes, log_prob in beam_search(log_probs_TC, width)
            ]
            predictions.append({**ranked[0], "greedy": text, "top": ranked[: options.top]})
        return predictions

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        width = max(columns_of(escape_control(text)) for text in ("file", *sources))
        for index, (source, prediction) in enumerate(predictions):
            if index == 0:
                yield f"{'file':<{width}}  probability  text"
            text = escape_control(prediction["text"])
            yield f"{left(escape_control(source), width)}  {prediction['probability']:>11.4f}  {text}"

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", None)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        batch: Step = {"op": "batch", "layout": "NTM", "pad": "nan", "dtype": "float32"}
        decode: Step = {"op": "ctc_greedy", "axis": 2, "blank": 0, "characters": self._characters}
        return {"preprocess": [*sound_steps(self._features), batch], "postprocess": [decode]}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, _EXAMPLE_FRAMES, self._features.mels, generator=generator)
