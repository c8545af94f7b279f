"""What is to be said, and wav files of a model saying it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_EXAMPLE = 64  # samples


class SpeechSynthesisProcessor:
    """The `Processor` of models that speak: input is one of `classes`, or several as `3 7`; the answer is a wav file of
    `length` samples, `rate` a second, in the folder `output` of predict.yaml, named by class and seed.

    Raises:
        ValueError: there are no classes.
    """

    def __init__(
        self,
        classes: Sequence[str],
        rate: Annotated[int, Bounds(at_least=1_000, at_most=1_000_000)],
        length: Annotated[int, Bounds(at_least=1, at_most=10_000_000)],
    ) -> None:
        if not classes:
            raise ValueError("classes: there are none")
        self._classes, self._rate, self._length = list(classes), rate, length

    def list_inputs(self, given: str) -> Sequence[str]:
        wanted = [given] if given in self._classes else given.split()
        unknown = [name for name in wanted if name not in self._classes]
        if unknown or not wanted:
            raise DataError(
                f"input: '{escape_control(given)}' is none of what this model says: {', '.join(self._classes)}"
            )
        return wanted

    def load(self, source: str) -> Tensor:
        """int64 (1,): the number of the class."""
        return torch.tensor([self._classes.index(self.list_inputs(source)[0])])

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        return torch.stack([*samples]).to(device)

    def predict(
        self,
        model: nn.Module,
        inputs: Tensor,
        sample: Mapping[str, Any] | None = None,
        output: str = "generated",
        **_: Any,
    ) -> list[dict[str, Any]]:
        how = Sampling(**(sample or {}))
        codes_NT = generate(cast(Decoder, model), inputs, self._length, how.choose).cpu()
        answers = []
        for number, codes_T in zip(inputs[:, 0].tolist(), codes_NT, strict=True):
            file = Path(output) / f"{self._classes[number]}-{how.seed}.wav"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with replacing(file) as scratch:
                    write_wav(scratch, mu_law_decode(codes_T), self._rate)
            except OSError as error:
                raise StorageError(f"{file}: cannot be written: {error.strerror or error}; set output=...") from error
            answers.append({"file": str(file), "seconds": self._length / self._rate})
        return answers

    def format_rows(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        for source, answer in answered:
            yield f"{escape_control(source)}  {answer['seconds']:.2f} s in {escape_control(answer['file'])}"

    def axes(self) -> Mapping[int, Axis]:
        """The class, then the samples so far."""
        return {1: Axis("time", 1 + _EXAMPLE, at_most=1 + self._length)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        again: Step = {"op": "generate", "from": "the logits of the last position", "append": "the code drawn"}
        heard: Step = {"op": "mu_law_decode", "codes": CODES, "rate": self._rate, "length": self._length}
        first: list[Step] = [{"op": "class_index", "classes": self._classes}, {"op": "batch", "dtype": "int64"}]
        return {"preprocess": first, "postprocess": [again, {"op": "softmax", "axis": 2}, heard]}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        classes_N1 = torch.randint(len(self._classes), (count, 1), generator=generator)
        return torch.cat([classes_N1, torch.randint(CODES, (count, _EXAMPLE), generator=generator)], dim=1)
