"""Small Deep Speech 2 (Amodei et al. 2015, arXiv:1512.02595): convolutions over time, then recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.padding import lengths, valid_mask

__all__ = ["DeepSpeech"]

BLANK_LOGIT = 1e4  # so far above other logits that their probabilities are 0 in float32


class DeepSpeech(nn.Module):
    """Spectrograms (N, T, M), clips padded with NaN, to logits (N, T / stride, classes); class 0 is the blank.

    - Frames beyond a clip's end are blank with probability 1, so that neither the loss nor a decoder needs lengths.
    - A clip's outputs do not depend on the rest of its batch: layers normalize each frame, where the paper normalizes
      over the batch, which would include padding.
    - `bidirectional`: GRU layers read both ways.
    """

    def __init__(
        self,
        input_shape: Sequence[PositiveInt],
        num_classes: PositiveInt,
        channels: PositiveInt = 64,
        kernel: PositiveInt = 11,
        strides: Sequence[PositiveInt] = (2, 2),
        hidden: PositiveInt = 64,
        layers: PositiveInt = 1,
        bidirectional: bool = True,
        dropout: ProperFraction = 0.1,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: must be odd, not {kernel}")
        self.strides = list(strides)
        widths = [input_shape[-1], *[channels] * len(strides)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, channels, kernel, stride, padding=kernel // 2)
            for width, stride in zip(widths, strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in strides)
        self.dropout = nn.Dropout(dropout)
        directions = 1 + bidirectional
        widths = [widths[-1], *[directions * hidden] * (layers - 1)]
        self.forwards = nn.ModuleList(nn.GRU(width, hidden, batch_first=True) for width in widths)
        self.backwards = nn.ModuleList(nn.GRU(width, hidden, batch_first=True) for width in widths if bidirectional)
        self.head = nn.Linear(directions * hidden, num_classes)

    def forward(self, x_NTM: Tensor) -> Tensor:
        valid_NT = valid_mask(x_NTM)
        length_N = lengths(x_NTM)
        h_NTF = torch.where(valid_NT[..., None], x_NTM, 0.0)
        for convolution, norm, stride in zip(self.convolutions, self.norms, self.strides, strict=True):
            h_NTF = norm(convolution(h_NTF.mT).mT).relu()
            length_N = (length_N - 1) // stride + 1
            valid_NT = torch.arange(h_NTF.shape[1], device=h_NTF.device) < length_N[:, None]
            h_NTF = self.dropout(h_NTF * valid_NT[..., None])
        reversal_NT1 = _reversal_index(length_N, h_NTF.shape[1])
        for forward, backward in zip_longest(self.forwards, self.backwards):
            outputs = [forward(h_NTF)[0]]
            if backward is not None:
                outputs.append(_gather_frames(backward(_gather_frames(h_NTF, reversal_NT1))[0], reversal_NT1))
            h_NTF = self.dropout(torch.cat(outputs, dim=2) * valid_NT[..., None])
        logits_NTC = self.head(h_NTF)
        blank_C = torch.zeros(logits_NTC.shape[2], device=logits_NTC.device).index_fill(
            0, torch.zeros(1, dtype=torch.int64, device=logits_NTC.device), BLANK_LOGIT
        )
        return torch.where(valid_NT[..., None], logits_NTC, blank_C)


def _reversal_index(length_N: Tensor, frames: int) -> Tensor:
    """Return frame indices (N, T, 1), int64, that reverse each clip and leave its padding in place."""
    frame_T = torch.arange(frames, device=length_N.device)
    reversed_NT = length_N[:, None] - 1 - frame_T
    return torch.where(reversed_NT >= 0, reversed_NT, frame_T)[..., None]


def _gather_frames(h_NTF: Tensor, frames_NT1: Tensor) -> Tensor:
    return h_NTF.gather(1, frames_NT1.expand(-1, -1, h_NTF.shape[2]))
