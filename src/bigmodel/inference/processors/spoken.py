"""Synthesize speech: wav files in which a model says a class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from bigmodel.constraints import Bounds
from bigmodel.datasets.audio.mu_law import CODES, mu_law_decode
from bigmodel.datasets.audio.wav import write_wav
from bigmodel.errors import DataError, StorageError
from bigmodel.formatting import escape_control
from bigmodel.inference.processors.steps import Step
from bigmodel.interfaces import Axis
from bigmodel.models.decoding.generation import Decoder, generate
from bigmodel.models.decoding.sampling import Sampling
from bigmodel.safe_files import replacing

__all__ = ["SpeechSynthesisProcessor"]

_EXAMPLE_LENGTH = 64  # audio samples


class SpeechSynthesisProcessor:
    """`Processor` of speech models: `input` is one of `classes`, or several as `3 7`.

    A prediction is a wav file of `length` samples at `rate` hertz, named by class and seed.

    Raises:
        ValueError: `classes` is empty.
    """

    @dataclass(frozen=True)
    class Options:
        """Prediction options of speech models."""

        sample: Sampling = field(default_factory=Sampling)
        output: str = "generated"  # folder of the wav files

    def __init__(
        self,
        classes: Sequence[str],
        rate: Annotated[int, Bounds(at_least=1_000, at_most=1_000_000)],
        length: Annotated[int, Bounds(at_least=1, at_most=10_000_000)],
    ) -> None:
        if not classes:
            raise ValueError("classes: must not be empty")
        self._classes = list(classes)
        self._rate = rate
        self._length = length

    def list_inputs(self, given: str) -> Sequence[str]:
        names = [given] if given in self._classes else given.split()
        unknown = [name for name in names if name not in self._classes]
        if unknown or not names:
            raise DataError(f"input: this model cannot say '{escape_control(given)}', only: {', '.join(self._classes)}")
        return names

    def load(self, source: str) -> Tensor:
        """Return the class index, int64 (1,)."""
        return torch.tensor([self._classes.index(self.list_inputs(source)[0])])

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        return torch.stack([*samples]).to(device)

    def predict(self, model: nn.Module, inputs: Tensor, options: Options) -> list[dict[str, Any]]:
        """Write a wav file for each input, and return its `file` and length in `seconds`.

        Raises:
            StorageError: a file cannot be written.
        """
        sampling = options.sample
        codes_NT = generate(cast(Decoder, model), inputs, self._length, sampling.choose).cpu()
        predictions = []
        for index, codes_T in zip(inputs[:, 0].tolist(), codes_NT, strict=True):
            file = Path(options.output) / f"{self._classes[index]}-{sampling.seed}.wav"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with replacing(file) as scratch:
                    write_wav(scratch, mu_law_decode(codes_T), self._rate)
            except OSError as error:
                raise StorageError(f"{file}: cannot be written: {error.strerror or error}; set output=...") from error
            predictions.append({"file": str(file), "seconds": self._length / self._rate})
        return predictions

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        for source, prediction in predictions:
            yield f"{escape_control(source)}  {prediction['seconds']:.2f} s in {escape_control(prediction['file'])}"

    def axes(self) -> Mapping[int, Axis]:
        """Dimension 1: the class index, then the samples generated so far."""
        return {1: Axis("time", 1 + _EXAMPLE_LENGTH, at_most=1 + self._length)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        class_index: Step = {"op": "class_index", "classes": self._classes}
        generate_codes: Step = {"op": "generate", "from": "the logits of the last position", "append": "the code drawn"}
        decode: Step = {"op": "mu_law_decode", "codes": CODES, "rate": self._rate, "length": self._length}
        return {
            "preprocess": [class_index, {"op": "batch", "dtype": "int64"}],
            "postprocess": [generate_codes, {"op": "softmax", "axis": 2}, decode],
        }

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        classes_N1 = torch.randint(len(self._classes), (count, 1), generator=generator)
        return torch.cat([classes_N1, torch.randint(CODES, (count, _EXAMPLE_LENGTH), generator=generator)], dim=1)
