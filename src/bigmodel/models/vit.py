"""Transformer over patches of an image (Dosovitskiy et al. 2021, arXiv:2010.11929).

N images, P patches (and the class token), C channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.transformer import EncoderBlock

__all__ = ["ViT"]


class ViT(nn.Module):
    """Images (N, channels, height, width) to logits (N, classes), in pre-norm blocks with learned positions.

    `pool` reads the logits from a class token or from the mean over all patches.

    Raises:
        ValueError: the patches do not divide the image, or the heads the width.
    """

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        patch: PositiveInt = 4,
        layers: PositiveInt = 6,
        heads: PositiveInt = 4,
        width: PositiveInt = 192,
        dropout: ProperFraction = 0.0,
        pool: Literal["token", "mean"] = "mean",
    ) -> None:
        super().__init__()
        channels, height, image_width = input_shape
        if height % patch or image_width % patch:
            raise ValueError(f"patch: {patch} does not divide images of {height}x{image_width}")
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(width)) if pool == "token" else None
        tokens = (height // patch) * (image_width // patch) + (pool == "token")
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(tokens, width), std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NPC = self.embed(x_NCHW).flatten(2).mT
        if self.token is not None:
            x_NPC = torch.cat([self.token.expand(len(x_NPC), 1, -1), x_NPC], 1)
        x_NPC = self.norm(self.blocks(self.dropout(x_NPC + self.positions)))
        return self.head(x_NPC.mean(1) if self.token is None else x_NPC[:, 0])  # type: ignore[no-any-return]
