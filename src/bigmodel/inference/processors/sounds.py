"""Classify sound files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import Bounds
from bigmodel.datasets.audio.mel import LogMel, pad_or_trim
from bigmodel.datasets.audio.wav import SUFFIXES, read_wav
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.ranking import RankingOptions, format_ranking, top_classes
from bigmodel.inference.processors.steps import Step, class_steps, sound_steps
from bigmodel.inference.processors.waves import to_wave
from bigmodel.inference.shown import Shown, spectrogram_picture
from bigmodel.interfaces import Axis, NoOptions

__all__ = ["AudioClassificationProcessor"]


class AudioClassificationProcessor:
    """`Processor` of audio classifiers on log-mel spectrograms of `frames` frames.

    Raises:
        ValueError: `classes` is empty.
    """

    Options: type[NoOptions] = RankingOptions

    def __init__(
        self, classes: Sequence[str], frames: Annotated[int, Bounds(at_least=1, at_most=100_000)], features: LogMel
    ) -> None:
        if not classes:
            raise ValueError("classes: must not be empty")
        self._classes = classes
        self._frames = frames
        self._features = features

    def list_inputs(self, given: str) -> Iterable[str]:
        return list_files(given, SUFFIXES, "sound file")

    def load(self, source: str) -> Tensor:
        """Read a wav file as a spectrogram, float32 (1, frames, mels)."""
        return pad_or_trim(self._features(read_wav(source, self._features.rate)), self._frames)[None]

    def convert(self, value: object) -> Tensor:
        """Convert a pair (samples, rate) to a spectrogram: see `to_wave`."""
        return pad_or_trim(self._features(to_wave(value, self._features.rate)), self._frames)[None]

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        return torch.stack([*samples]).to(device)

    def predict(self, model: nn.Module, inputs: Tensor, options: RankingOptions) -> list[dict[str, Any]]:
        return top_classes(model(inputs), self._classes, options.top)

    def show(self, inputs: Tensor) -> Shown:
        return Shown(picture=spectrogram_picture(inputs[0]))

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        return format_ranking("file", sources, self._classes, predictions)

    def axes(self) -> Mapping[int, Axis]:
        return {2: Axis("time", self._frames)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        fit: Step = {"op": "fit_length", "length": self._frames, "fill": "the least value of the clip"}
        batch: Step = {"op": "batch", "layout": "N1TM", "dtype": "float32"}
        return {
            "preprocess": [*sound_steps(self._features), fit, batch],
            "postprocess": class_steps(self._classes),
        }

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 1, self._frames, self._features.mels, generator=generator)
