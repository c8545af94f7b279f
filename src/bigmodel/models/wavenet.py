"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions that say each next sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.ranges import PositiveInt

__all__ = ["Steps", "WaveNet"]


class WaveNet(nn.Module):
    """Classes and codes (N, 1 + T), filled up with -1, to logits (N, T, codes) of each code, given those before it.

    The class reaches every layer (the paper's global conditioning). A sample comes in as its code's place between -1
    and 1, with a 1 beside it that tells silence from what was before the clip. `receptive_field` samples are heard.
    """

    def __init__(
        self,
        num_classes: PositiveInt,
        num_codes: PositiveInt,
        channels: PositiveInt = 16,
        skip_channels: PositiveInt = 32,
        dilations: Sequence[PositiveInt] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.receptive_field = 1 + sum(dilations)
        self.classes = nn.Embedding(num_classes, channels)
        self.first = nn.Conv1d(2, channels, 1)
        self.layers = nn.ModuleList(_Layer(channels, skip_channels, dilation) for dilation in dilations)
        self.hidden = nn.Conv1d(skip_channels, skip_channels, 1)
        self.head = nn.Conv1d(skip_channels, num_codes, 1)

    def forward(self, x_NT: Tensor) -> Tensor:
        class_NC, before_NT = self.classes(x_NT[:, 0].long()), x_NT[:, 1:-1]
        heard_N2T = F.pad(self.heard(before_NT.clamp(min=0)), (1, 0))
        h_NCT, skips_NST = self.first(heard_N2T), 0
        for layer in self.layers:
            h_NCT, skip_NST = layer(h_NCT, F.pad(h_NCT, (layer.dilation, 0))[..., : h_NCT.shape[2]], class_NC)
            skips_NST = skips_NST + skip_NST
        return self.said(skips_NST).mT

    def heard(self, codes_NT: Tensor) -> Tensor:
        """float (N, 2, T): what of a sample comes in."""
        place_NT = codes_NT.to(self.head.weight.dtype) * (2 / (self.num_codes - 1)) - 1
        return torch.stack([place_NT, torch.ones_like(place_NT)], dim=1)

    def said(self, skips_NST: Tensor) -> Tensor:
        """Logits (N, codes, T)."""
        return self.head(self.hidden(skips_NST.relu()).relu())  # type: ignore[no-any-return]

    def steps(self, classes_N: Tensor) -> Steps:
        """To say a clip of each class, one sample after the other."""
        return Steps(self, classes_N)


class Steps:
    """Generation in which each layer keeps what it has still to hear again (Le Paine et al. 2016, arXiv:1611.09482): a
    sample costs one column of each layer, where `forward` would compute all those before it anew.
    """

    def __init__(self, model: WaveNet, classes_N: Tensor) -> None:
        self._model, self._class_NC, self._step = model, model.classes(classes_N), 0
        channels = model.first.out_channels
        self._kept_NCD = [self._class_NC.new_zeros(len(classes_N), channels, layer.dilation) for layer in model.layers]

    def __call__(self, code_N: Tensor | None) -> Tensor:
        """Logits (N, codes) of the next code, given the last one; None before the first."""
        model = self._model
        heard_N21 = (
            self._class_NC.new_zeros(len(self._class_NC), 2, 1) if code_N is None else model.heard(code_N[:, None])
        )
        h_NC1, skips_NS1 = model.first(heard_N21), 0
        for layer, kept_NCD in zip(model.layers, self._kept_NCD, strict=True):
            place = self._step % layer.dilation
            earlier_NC1 = kept_NCD[..., place : place + 1].clone()
            kept_NCD[..., place : place + 1] = h_NC1
            h_NC1, skip_NS1 = layer(h_NC1, earlier_NC1, self._class_NC)
            skips_NS1 = skips_NS1 + skip_NS1
        self._step += 1
        return model.said(skips_NS1)[..., 0]


class _Layer(nn.Module):
    """A gate over each sample and the one `dilation` before it, then a residual and a skip."""

    def __init__(self, channels: int, skip_channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation, self._split = dilation, (channels, skip_channels)
        self.gate = nn.Conv1d(2 * channels, 2 * channels, 1)
        self.condition = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Conv1d(channels, channels + skip_channels, 1)

    def forward(self, now_NCT: Tensor, earlier_NCT: Tensor, class_NC: Tensor) -> tuple[Tensor, Tensor]:
        gate_NGT = self.gate(torch.cat([earlier_NCT, now_NCT], dim=1)) + self.condition(class_NC)[..., None]
        filter_NCT, share_NCT = gate_NGT.chunk(2, dim=1)
        residual_NCT, skip_NST = self.out(filter_NCT.tanh() * share_NCT.sigmoid()).split(self._split, dim=1)
        return now_NCT + residual_NCT, skip_NST
