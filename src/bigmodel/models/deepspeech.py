"""Deep Speech 2 in small (Amodei et al. 2015, arXiv:1512.02595): convolutions over time, then recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.padding import lengths, valid_mask

__all__ = ["DeepSpeech"]

BLANK_LOGIT = 1e4  # a logit so far above the others that their odds are 0 in float32


class DeepSpeech(nn.Module):
    """Spectrograms (N, T, M), clips filled up with NaN, to logits (N, T / stride, classes), of which class 0 is the
    blank.

    Frames beyond a clip's end are blank for certain, so that neither the loss nor a decoder needs the clips' lengths; a
    clip's outputs do not depend on what else is in its batch. Layers are normalised a frame at a time where the paper
    normalises over the batch, which would see the filling. GRU layers read both ways unless `both_ways` is false.
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
        both_ways: bool = True,
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
        ways, width = 1 + both_ways, widths[-1]
        widths = [width, *[ways * hidden] * (layers - 1)]
        self.forwards = nn.ModuleList(nn.GRU(width, hidden, batch_first=True) for width in widths)
        self.backwards = nn.ModuleList(nn.GRU(width, hidden, batch_first=True) for width in widths if both_ways)
        self.head = nn.Linear(ways * hidden, num_classes)

    def forward(self, x_NTM: Tensor) -> Tensor:
        there_NT, length_N = valid_mask(x_NTM), lengths(x_NTM)
        h_NTF = torch.where(there_NT[..., None], x_NTM, 0.0)
        for convolution, norm, stride in zip(self.convolutions, self.norms, self.strides, strict=True):
            h_NTF = norm(convolution(h_NTF.mT).mT).relu()
            length_N = (length_N - 1) // stride + 1
            there_NT = torch.arange(h_NTF.shape[1], device=h_NTF.device) < length_N[:, None]
            h_NTF = self.dropout(h_NTF * there_NT[..., None])
        turned_NT1 = _reversal_index(length_N, h_NTF.shape[1])
        for forward, backward in zip_longest(self.forwards, self.backwards):
            read = [forward(h_NTF)[0]]
            if backward is not None:
                read.append(_gather_frames(backward(_gather_frames(h_NTF, turned_NT1))[0], turned_NT1))
            h_NTF = self.dropout(torch.cat(read, dim=2) * there_NT[..., None])
        logits_NTC = self.head(h_NTF)
        blank_C = torch.zeros(logits_NTC.shape[2], device=logits_NTC.device).index_fill(
            0, torch.zeros(1, dtype=torch.int64, device=logits_NTC.device), BLANK_LOGIT
        )
        return torch.where(there_NT[..., None], logits_NTC, blank_C)


def _reversal_index(length_N: Tensor, frames: int) -> Tensor:
    """int64 (N, T, 1): numbers of the frames in an order in which each clip, not its filling, is turned round."""
    frame_T = torch.arange(frames, device=length_N.device)
    turned_NT = length_N[:, None] - 1 - frame_T
    return torch.where(turned_NT >= 0, turned_NT, frame_T)[..., None]


def _gather_frames(h_NTF: Tensor, frames_NT1: Tensor) -> Tensor:
    return h_NTF.gather(1, frames_NT1.expand(-1, -1, h_NTF.shape[2]))
