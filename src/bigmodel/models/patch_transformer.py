"""Transformer over patches of each series, after PatchTST."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.windowed import instance_normalize

__all__ = ["PatchTransformer"]


class PatchTransformer(nn.Module):
    """PatchTST (Nie et al. 2023, arXiv:2211.14730) in pre-norm form. (N, T, C) to (N, H, C).

    All series share the weights. Each window is normalized (see `windowed`), padded with its last value and cut into
    overlapping patches, the transformer's tokens; a linear layer maps all tokens to the H steps.

    Raises:
        ValueError: a patch is longer than the window, or the width is not a multiple of the heads.
    """

    def __init__(
        self,
        window: PositiveInt,
        horizon: PositiveInt,
        patch: PositiveInt = 16,
        stride: PositiveInt = 8,
        width: PositiveInt = 16,
        heads: PositiveInt = 4,
        depth: PositiveInt = 2,
        feedforward: PositiveInt = 128,
        dropout: ProperFraction = 0.3,
    ) -> None:
        super().__init__()
        if patch > window:
            raise ValueError(f"patch: {patch} time steps exceed the window of {window}")
        if width % heads:
            raise ValueError(f"width: {width} is not a multiple of {heads} heads")
        self._patch = patch
        self._stride = stride
        tokens = (window - patch) // stride + 2
        self.embed = nn.Linear(patch, width)
        self.position_PD = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(tokens * width, horizon)

    def forward(self, x_NTC: Tensor) -> Tensor:
        window_NTC, denormalize = instance_normalize(x_NTC)
        longer_NCT = F.pad(window_NTC.transpose(1, 2), (0, self._stride), mode="replicate")
        patches_BPL = longer_NCT.flatten(0, 1).unfold(1, self._patch, self._stride)
        tokens_BPD = self.dropout(self.embed(patches_BPL) + self.position_PD)
        y_BH = self.head(self.dropout(self.encoder(tokens_BPD).flatten(1)))
        return denormalize(y_BH.unflatten(0, (-1, x_NTC.shape[2])).transpose(1, 2))
