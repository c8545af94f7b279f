"""Samples as people see them, made from what the model is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shown:
    """A sample as a text, a picture or named fields; what a sample does not have is empty.

    `picture` is uint8 (C, H, W), C = 1 or 3.
    """

    text: str = ""
    picture: Tensor | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class ShowsSamples(Protocol):
    """A `Processor` that can turn a model's input back into what people see."""

    def show(self, inputs: Tensor) -> Shown:
        """Show one sample of a batch's inputs, without the batch dimension."""


@runtime_checkable
class KnowsFiles(Protocol):
    """A `Loader` of samples that are files."""

    def eval_files(self, split: str) -> Sequence[str]:
        """Return the files of a split's samples in the order of `eval_batches`; empty where they are not known."""


def spectrogram_picture(frames_FM: Tensor) -> Tensor:
    """Draw a spectrogram as uint8 (1, M, F): time to the right, low tones below, loud ones bright. NaN is padding."""
    kept_FM = frames_FM[~frames_FM.isnan().any(1)].float()
    low, high = kept_FM.aminmax()
    scaled_FM = (kept_FM - low) / (high - low).clamp(min=1e-6)
    return (255 * scaled_FM.T.flip(0)).round().to(torch.uint8)[None].cpu()
