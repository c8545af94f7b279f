"""One pass over a split with a run's best weights, for the sections that need predictions; sampled and bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bigmodel.formatting import format_count
from bigmodel.inference.shown import KnowsFiles, Shown, ShowsSamples
from bigmodel.interfaces import Batch, Loader, Task
from bigmodel.runs.report.svg import SvgWriter
from bigmodel.runtime.device import Device


@dataclass(frozen=True)
class Subject:
    """A trained model with its data: what is inspected.

    `spec` is the checkpoint's `processor_spec`; `has_counts` says that the page has a confusion matrix already.
    """

    model: nn.Module
    task: Task
    device: Device
    loader: Loader
    split: str
    processor: Any
    spec: Mapping[str, Any]
    step: int
    has_counts: bool = False
    budget_s: float = 30.0  # for the pass, and half as many for anything after it

    def show(self, sample: Tensor) -> Shown:
        """Show a sample as far as the run's processor can."""
        return self.processor.show(sample) if isinstance(self.processor, ShowsSamples) else Shown()

    def file(self, index: int) -> str:
        """Return the file of a sample of the split, or an empty text."""
        return self._files[index] if index < len(self._files) else ""

    def origin(self, index: int) -> list[tuple[str, str]]:
        """Name the sample: its file with the folder that it is in, or its number in the split."""
        name = "/".join(Path(self.file(index)).parts[-2:])
        return [("file", name)] if name else [("sample", f"{index} of {self.split}")]

    @cached_property
    def _files(self) -> Sequence[str]:
        return self.loader.eval_files(self.split) if isinstance(self.loader, KnowsFiles) else ()


class Inspector(Protocol):
    """Collects what one kind of task has to show, and writes it."""

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        """Take a batch and the model's outputs; `first` is the number of the batch's first sample in the split."""

    def sections(self, writer: SvgWriter, where: str) -> str:
        """Return HTML; `where` names the samples that were seen."""


def inspect(subject: Subject, make: Callable[[Subject], Inspector], writer: SvgWriter, max_samples: float) -> str:
    """Return the sections of a pass over about `max_samples` samples, evenly spread over the split.

    The pass ends when the subject's budget is spent, whatever it has seen.
    """
    inspector = make(subject)
    total = subject.loader.splits[subject.split]
    every = max(1, math.ceil(total / max_samples))
    seen = position = 0
    deadline = monotonic() + subject.budget_s
    subject.model.eval()
    with torch.inference_mode():
        for number, batch in enumerate(subject.loader.eval_batches(subject.split)):
            if number % every == 0:
                with subject.device.autocast():
                    _, outputs = subject.task.loss(subject.model, batch)
                inspector.add(batch, outputs.float(), position)
                seen += len(batch.targets)
            position += len(batch.targets)
            if monotonic() > deadline:
                break
    whole = format_count(total, "sample")
    some = f"{seen:,} of the {whole}" if seen < total else f"All {whole}"
    return inspector.sections(writer, f"{some} of {subject.split}, weights of step {subject.step:,}")
