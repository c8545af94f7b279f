"""Random changes of spectrograms in training, a batch at a time on the device: shifts and masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.constraints import NonNegativeInt
from bigmodel.interfaces import Batch
from bigmodel.seeds import derive


@dataclass(frozen=True)
class SpecAugment:
    """Time and frequency masking (Park et al. 2019, arXiv:1904.08779) after a shift; all is a function of (seed, step).

    `shift`: the largest shift in frames to either side; the outermost frame fills the gap.
    `time_masks`, `mel_masks`: the number of stripes, each of up to `time_width` frames or `mel_width` bands, that are
    set to the mean, which is 0.
    """

    shift: NonNegativeInt = 0
    time_masks: NonNegativeInt = 0
    time_width: NonNegativeInt = 10
    mel_masks: NonNegativeInt = 0
    mel_width: NonNegativeInt = 8

    def __call__(self, batch: Batch, seed: int, step: int) -> Batch:
        """Change inputs (N, ..., T, M); padding, which is NaN, stays NaN."""
        inputs = batch.inputs
        if self.shift:
            inputs = _shift(inputs, self.shift, _generator(inputs, seed, "shift", step))
        hidden = torch.zeros_like(inputs, dtype=torch.bool)
        for purpose, dim, count, width in (
            ("time masks", -2, self.time_masks, self.time_width),
            ("mel masks", -1, self.mel_masks, self.mel_width),
        ):
            generator = _generator(inputs, seed, purpose, step)
            for _ in range(count):
                hidden |= _stripe(inputs, dim, width, generator)
        return batch._replace(inputs=inputs.masked_fill(hidden & ~inputs.isnan(), 0.0))


def _shift(inputs: Tensor, most: int, generator: torch.Generator) -> Tensor:
    count = len(inputs)
    frames = inputs.shape[-2]
    shift_N1 = torch.randint(-most, most + 1, (count, 1), device=inputs.device, generator=generator)
    sources_NT = (torch.arange(frames, device=inputs.device) - shift_N1).clamp(0, frames - 1)
    return inputs.gather(-2, _along(sources_NT, inputs, -2).expand_as(inputs))


def _stripe(inputs: Tensor, dim: int, most: int, generator: torch.Generator) -> Tensor:
    """bool, to be broadcast with the inputs: one stripe for each sample."""
    size = inputs.shape[dim]
    draw = torch.rand(2, len(inputs), 1, device=inputs.device, generator=generator)
    width_N1 = (draw[0] * (min(most, size) + 1)).floor()
    first_N1 = (draw[1] * (size - width_N1 + 1)).floor()
    position = torch.arange(size, device=inputs.device)
    return _along((position >= first_N1) & (position < first_N1 + width_N1), inputs, dim)


def _along(values_NS: Tensor, inputs: Tensor, dim: int) -> Tensor:
    """Reshape (N, S) to the shape of the inputs, with S in the dimension `dim` and 1 in all others."""
    shape = [len(inputs)] + [1] * (inputs.ndim - 1)
    shape[dim] = values_NS.shape[1]
    return values_NS.view(shape)


def _generator(tensor: Tensor, seed: int, purpose: str, step: int) -> torch.Generator:
    return torch.Generator(tensor.device).manual_seed(derive(seed, purpose, step))
