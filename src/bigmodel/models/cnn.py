"""Small first network: one convolution and two linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from bigmodel.constraints import PositiveInt

__all__ = ["CNN"]


class CNN(nn.Module):
    """3x3 convolution (padding 1), ReLU, flatten, linear, ReLU, linear. (N, C, H, W) to logits (N, classes)."""

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        channels: PositiveInt = 64,
        hidden: PositiveInt = 1000,
    ) -> None:
        super().__init__()
        depth, height, width = input_shape
        self.conv = nn.Conv2d(depth, channels, 3, padding=1)
        self.hidden = nn.Linear(channels * height * width, hidden)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        h_NF = self.conv(x_NCHW).relu().flatten(1)
        return self.head(self.hidden(h_NF).relu())  # type: ignore[no-any-return]
