"""Language modelling: loss, perplexity, and bits per byte, which is comparable between tokenizers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import Positive
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import MetricSpec, omit, standard_specs
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["InstructionTuning", "LanguageModelling"]

_LARGEST = 700.0  # the largest loss whose exponential fits a float


class LanguageModelling:
    """Predict the next token: outputs (N, T, V), targets (N, T) int, -1 = none.

    The loss is the mean cross-entropy of a token, in nats; perplexity is its exponential.
    """

    metric_specs = standard_specs("bits_per_byte") | {
        "loss": MetricSpec("min", "nats/token"),
        "perplexity": MetricSpec("min", "per token"),
    }

    def __init__(self, bytes_per_token: Positive | None = None) -> None:
        self._bytes = bytes_per_token
        self.metric_names = ("loss", "perplexity", *(() if bytes_per_token is None else ("bits_per_byte",)))
        self.metric_specs = omit(self.metric_specs, ("bits_per_byte",) if bytes_per_token is None else ())

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs_NTV = model(batch.inputs)
        loss = F.cross_entropy(outputs_NTV.flatten(0, 1).float(), batch.targets.flatten().long(), ignore_index=-1)
        return loss, outputs_NTV

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return sums over tokens; `loss_denominator` counts tokens."""
        count = (batch.targets >= 0).sum().to(torch.float64 if loss.device.type != "mps" else loss.dtype)
        return loss_sums(loss, count)

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        loss = mean_loss(sums)
        metrics = {"loss": loss, "perplexity": math.exp(min(loss, _LARGEST))}
        return metrics if self._bytes is None else metrics | {"bits_per_byte": loss / math.log(2) / self._bytes}

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        return self.train_sums(loss, outputs, batch)

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        return self.train_metrics(sums)


class InstructionTuning(LanguageModelling):
    """Language modelling of which the answers of conversations alone are targets; bytes of a text are not counted."""

    def __init__(self) -> None:
        super().__init__()
