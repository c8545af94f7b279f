"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions that predict the next sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt

__all__ = ["WaveNet", "WaveNetCache"]

_STEEPNESS = 32.0  # of the Gaussian that the head starts with


@dataclass
class WaveNetCache:
    """Ring buffer of `dilation` past activations for each layer, and the embedded class."""

    past_NCD: list[Tensor]
    class_NC: Tensor | None = None
    step: int = 0


class WaveNet(nn.Module):
    """Tokens (N, T), -1 = padding, to logits (N, T, codes) of each next code. The first token is a class index.

    The class conditions every layer (the paper's global conditioning). A sample enters as its code scaled to [-1, 1],
    with a second channel of 1 that distinguishes silence from the time before the clip. A prediction depends on
    `receptive_field` samples.
    """

    context = 1 << 62  # unlimited

    def __init__(
        self,
        num_classes: PositiveInt,
        num_codes: PositiveInt,
        channels: PositiveInt = 16,
        skip_channels: PositiveInt = 32,
        dilations: Sequence[PositiveInt] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    ) -> None:
        super().__init__()
        self.dilations = list(dilations)
        self.receptive_field = 1 + sum(dilations)
        self.classes = nn.Embedding(num_classes, channels)
        self.first = nn.Conv1d(2, channels, 1)
        self.layers = nn.ModuleList(_Layer(channels, skip_channels) for _ in dilations)
        self.hidden = nn.Conv1d(skip_channels, skip_channels, 1)
        self.head = nn.Conv1d(skip_channels, num_codes, 1)
        self._init_gaussian_head()

    def _init_gaussian_head(self) -> None:
        """Let three hidden units start as mean (both signs) and precision of a Gaussian over the codes.

        Logits that are linear and quadratic in a code's value are a Gaussian's, so that the order of the codes need not
        be learned.
        """
        value_V = torch.linspace(-1, 1, self.head.out_channels)
        gaussian_V3 = _STEEPNESS * torch.stack([value_V, -value_V, -value_V.square()], dim=1)
        with torch.no_grad():
            self.head.weight[:, :3, 0] += gaussian_V3[:, : self.head.in_channels]

    def forward(self, tokens_NT: Tensor, cache: WaveNetCache | None = None) -> Tensor:
        """Return logits. With a cache, the tokens continue those of earlier calls."""
        if cache is not None:
            return torch.cat([self._step(tokens_N, cache) for tokens_N in tokens_NT.unbind(1)], dim=1)
        class_NC = self.classes(tokens_NT[:, 0].long())
        h_NCT = self.first(F.pad(self._encode_samples(tokens_NT[:, 1:].clamp(min=0)), (1, 0)))
        skips = []
        for layer, dilation in zip(self.layers, self.dilations, strict=True):
            past_NCT = F.pad(h_NCT, (dilation, 0))[..., : h_NCT.shape[2]]
            h_NCT, skip_NST = layer(h_NCT, past_NCT, class_NC)
            skips.append(skip_NST)
        return self._logits(skips)

    def cache(self, count: int) -> WaveNetCache:
        """Return an empty cache for `count` clips.

        With it a sample costs one column of each layer, instead of all earlier ones too (Le Paine et al. 2016,
        arXiv:1611.09482).
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
        for layer, ring_NCD in zip(self.layers, cache.past_NCD, strict=True):
            slot = cache.step % ring_NCD.shape[2]
            past_NC1 = ring_NCD[..., slot : slot + 1].clone()
            ring_NCD[..., slot : slot + 1] = h_NC1
            h_NC1, skip_NS1 = layer(h_NC1, past_NC1, cache.class_NC)
            skips.append(skip_NS1)
        cache.step += 1
        return self._logits(skips)

    def _encode_samples(self, codes_NT: Tensor) -> Tensor:
        """Scale codes to [-1, 1] and add a channel of ones: (N, 2, T)."""
        value_NT = codes_NT.to(self.head.weight.dtype) * (2 / (self.head.out_channels - 1)) - 1
        return torch.stack([value_NT, torch.ones_like(value_NT)], dim=1)

    def _logits(self, skips: Sequence[Tensor]) -> Tensor:
        """Return logits (N, T, codes) from the layers' skip connections."""
        logits_NVT: Tensor = self.head(self.hidden(sum(skips, start=torch.zeros_like(skips[0])).relu()).relu())
        return logits_NVT.mT


class _Layer(nn.Module):
    """Gated unit over each sample and a past one, with a residual and a skip output."""

    def __init__(self, channels: int, skip_channels: int) -> None:
        super().__init__()
        self._split = (channels, skip_channels)
        self.gate = nn.Conv1d(2 * channels, 2 * channels, 1)
        self.condition = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Conv1d(channels, channels + skip_channels, 1)

    def forward(self, x_NCT: Tensor, past_NCT: Tensor, class_NC: Tensor) -> tuple[Tensor, Tensor]:
        gates_NGT = self.gate(torch.cat([past_NCT, x_NCT], dim=1)) + self.condition(class_NC)[..., None]
        filter_NCT, gate_NCT = gates_NGT.chunk(2, dim=1)
        residual_NCT, skip_NST = self.out(filter_NCT.tanh() * gate_NCT.sigmoid()).split(self._split, dim=1)
        return x_NCT + residual_NCT, skip_NST
