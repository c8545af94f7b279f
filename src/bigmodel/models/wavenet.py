"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions that say each next sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt

__all__ = ["WaveNet", "WaveNetCache"]

_STEEPNESS = 32.0


@dataclass
class WaveNetCache:
    """What each layer has still to hear again, a ring of `dilation` samples, and the class that is said."""

    kept_NCD: list[Tensor]
    class_NC: Tensor | None = None
    step: int = 0


class WaveNet(nn.Module):
    """Tokens (N, T), filled up with -1, to logits (N, T, codes) of each next one: first comes a class, then codes.

    The class reaches every layer (the paper's global conditioning). A sample comes in as its code's place between -1
    and 1, with a 1 beside it that tells silence from what was before the clip. `receptive_field` samples are heard.
    """

    context = 1 << 62  # it reads on without end

    def __init__(
        self,
        num_classes: PositiveInt,
        num_codes: PositiveInt,
        channels: PositiveInt = 16,
        skip_channels: PositiveInt = 32,
        dilations: Sequence[PositiveInt] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    ) -> None:
        super().__init__()
        self.dilations, self.receptive_field = list(dilations), 1 + sum(dilations)
        self.classes = nn.Embedding(num_classes, channels)
        self.first = nn.Conv1d(2, channels, 1)
        self.layers = nn.ModuleList(_Layer(channels, skip_channels) for _ in dilations)
        self.hidden = nn.Conv1d(skip_channels, skip_channels, 1)
        self.head = nn.Conv1d(skip_channels, num_codes, 1)
        self._init_gaussian_head()

    def _init_gaussian_head(self) -> None:
        """Three hidden units begin as place (either side) and narrowness of a bell over the codes, so that which codes
        are neighbours need not be learnt: logits that are linear and quadratic in a code's place are a Gaussian's.
        """
        place_V = torch.linspace(-1, 1, self.head.out_channels)
        bell_V3 = _STEEPNESS * torch.stack([place_V, -place_V, -place_V.square()], dim=1)
        with torch.no_grad():
            self.head.weight[:, :3, 0] += bell_V3[:, : self.head.in_channels]

    def forward(self, tokens_NT: Tensor, cache: WaveNetCache | None = None) -> Tensor:
        """With a cache, the tokens follow those that it was given before."""
        if cache is not None:
            return torch.cat([self._step(tokens_N, cache) for tokens_N in tokens_NT.unbind(1)], dim=1)
        class_NC = self.classes(tokens_NT[:, 0].long())
        h_NCT = self.first(F.pad(self._encode_samples(tokens_NT[:, 1:].clamp(min=0)), (1, 0)))
        skips = []
        for layer, dilation in zip(self.layers, self.dilations, strict=True):
            earlier_NCT = F.pad(h_NCT, (dilation, 0))[..., : h_NCT.shape[2]]
            h_NCT, skip_NST = layer(h_NCT, earlier_NCT, class_NC)
            skips.append(skip_NST)
        return self._logits(skips)

    def cache(self, count: int) -> WaveNetCache:
        """For `count` clips. A sample then costs one column of each layer, where all those before it would be computed
        anew (Le Paine et al. 2016, arXiv:1611.09482).
        """
        weight = self.first.weight
        return WaveNetCache([weight.new_zeros(count, len(weight), dilation) for dilation in self.dilations])

    def _step(self, tokens_N: Tensor, cache: WaveNetCache) -> Tensor:
        if cache.class_NC is None:
            cache.class_NC = self.classes(tokens_N.long())
            h_NC1 = self.first(torch.zeros_like(self._encode_samples(tokens_N[:, None])))
        else:
            h_NC1 = self.first(self._encode_samples(tokens_N[:, None]))
        skips = []
        for layer, kept_NCD in zip(self.layers, cache.kept_NCD, strict=True):
            place = cache.step % kept_NCD.shape[2]
            earlier_NC1 = kept_NCD[..., place : place + 1].clone()
            kept_NCD[..., place : place + 1] = h_NC1
            h_NC1, skip_NS1 = layer(h_NC1, earlier_NC1, cache.class_NC)
            skips.append(skip_NS1)
        cache.step += 1
        return self._logits(skips)

    def _encode_samples(self, codes_NT: Tensor) -> Tensor:
        """float (N, 2, T): what of a sample comes in."""
        place_NT = codes_NT.to(self.head.weight.dtype) * (2 / (self.head.out_channels - 1)) - 1
        return torch.stack([place_NT, torch.ones_like(place_NT)], dim=1)

    def _logits(self, skips: Sequence[Tensor]) -> Tensor:
        """Logits (N, T, codes)."""
        said_NVT: Tensor = self.head(self.hidden(sum(skips, start=torch.zeros_like(skips[0])).relu()).relu())
        return said_NVT.mT


class _Layer(nn.Module):
    """A gate over each sample and an earlier one, then a residual and a skip."""

    def __init__(self, channels: int, skip_channels: int) -> None:
        super().__init__()
        self._split = (channels, skip_channels)
        self.gate = nn.Conv1d(2 * channels, 2 * channels, 1)
        self.condition = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Conv1d(channels, channels + skip_channels, 1)

    def forward(self, now_NCT: Tensor, earlier_NCT: Tensor, class_NC: Tensor) -> tuple[Tensor, Tensor]:
        gate_NGT = self.gate(torch.cat([earlier_NCT, now_NCT], dim=1)) + self.condition(class_NC)[..., None]
        filter_NCT, share_NCT = gate_NGT.chunk(2, dim=1)
        residual_NCT, skip_NST = self.out(filter_NCT.tanh() * share_NCT.sigmoid()).split(self._split, dim=1)
        return now_NCT + residual_NCT, skip_NST
