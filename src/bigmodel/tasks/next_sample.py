"""The next sample of a wave, as one of its codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.interfaces import Batch

__all__ = ["NextSample"]


class NextSample:
    """Cross-entropy of outputs (N, T, codes) and targets (N, T), of which -1 counts for nothing, in nats a sample; in
    bits, it is what a lossless coder that asks the model would need (`bits_per_sample`).

    Metrics are sums over samples of waves: exact for any batching.
    """

    lower_is_better = frozenset({"loss", "bits_per_sample"})
    metric_names = ("loss", "bits_per_sample")

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_NTV = model(batch.inputs)
        loss = F.cross_entropy(logits_NTV.flatten(0, 1).float(), batch.targets.flatten().long(), ignore_index=-1)
        return loss, logits_NTV

    def tally(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """[samples, sum of losses]."""
        count = (batch.targets >= 0).sum().double()
        return torch.stack([count, loss.detach() * count])

    def metrics(self, tally: Sequence[float]) -> dict[str, float]:
        loss = tally[1] / tally[0]
        return {"loss": loss, "bits_per_sample": loss / math.log(2)}

    def examination(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        return self.tally(loss, outputs, batch)

    def report(self, examination: Sequence[float]) -> dict[str, Any]:
        return self.metrics(examination)
