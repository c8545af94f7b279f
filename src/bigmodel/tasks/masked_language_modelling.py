"""Masked language modelling: predict masked tokens from the rest of the text (Devlin et al. 2019, arXiv:1810.04805)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import Fraction, PositiveInt
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import MetricSpec, standard_specs
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["MaskedLanguageModelling"]

_DRAWS = 8191  # in evaluation; a prime above any text length


class MaskedPrediction(ABC):
    """Base of tasks whose `loss` returns [predicted tokens, correct ones] in place of the outputs."""

    metric_names = ("loss", "accuracy")
    metric_specs = standard_specs() | {
        "loss": MetricSpec("min", "nats/token"),
        "accuracy": MetricSpec("max", "of tokens", ".2%"),
    }

    @abstractmethod
    def predict_hidden(self, model: nn.Module, tokens_NT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, M, V) of tokens that the model does not see, their positions (N, M), and the tokens
        themselves (N, M), -1 where there is nothing to predict.
        """

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the predicted tokens, and [predicted, correct] counts in place of the outputs."""
        logits_NMV, _, targets_NM = self.predict_hidden(model, batch.inputs)
        count = (targets_NM >= 0).sum()
        total = F.cross_entropy(
            logits_NMV.flatten(0, 1).float(), targets_NM.flatten(), ignore_index=-1, reduction="sum"
        )
        right = (logits_NMV.argmax(2) == targets_NM).sum()
        return total / count.clamp(min=1), torch.stack([count, right]).to(total.dtype)

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return sums over predicted tokens; `loss_denominator` counts them."""
        count, correct = outputs
        return loss_sums(loss, count) | {"correct": correct}

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return loss and accuracy; both are 0 where no token was predicted, as in a batch of short texts."""
        count = max(1.0, float(sums["loss_denominator"]))
        return {"loss": mean_loss(sums), "accuracy": float(sums["correct"]) / count}

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        return self.train_sums(loss, outputs, batch)

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        return self.train_metrics(sums)


class MaskedLanguageModelling(MaskedPrediction):
    """Mask each token with `mask_probability`: 80 % become the mask token V, 10 % another token, 10 % stay.

    Inputs (N, T) int64, -1 = padding; outputs (N, T, V). The batch's own targets are not used. In training the draws
    come from the step's generator, as for dropout. In evaluation they are a fixed function of each text, so the metrics
    are the same for any batching.
    """

    def __init__(self, vocab_size: PositiveInt, mask_probability: Fraction = 0.15) -> None:
        self._size = vocab_size
        self._mask_probability = mask_probability

    def predict_hidden(self, model: nn.Module, tokens_NT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shown_NT, asked_NT = self.mask_tokens(tokens_NT, model.training)
        positions_NT = torch.arange(tokens_NT.shape[1], device=tokens_NT.device).expand(len(tokens_NT), -1)
        return model(shown_NT), positions_NT, tokens_NT.masked_fill(~asked_NT, -1)

    def mask_tokens(self, tokens_NT: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """Return the tokens with the masked ones replaced, and bool (N, T): which tokens to predict."""
        draws_3NT = draw_uniform(3, tokens_NT, training)
        asked_NT = (draws_3NT[0] < self._mask_probability) & (tokens_NT >= 0)
        others_NT = (draws_3NT[1] * self._size).long().clamp(max=self._size - 1)
        shown_NT = torch.where(draws_3NT[2] < 0.8, self._size, others_NT.where(draws_3NT[2] < 0.9, tokens_NT))
        return shown_NT.where(asked_NT, tokens_NT), asked_NT


def draw_uniform(count: int, tokens_NT: Tensor, training: bool) -> Tensor:
    """Uniform draws (K, N, T) in [0, 1): from the step's generator in training; a fixed function of each text in
    evaluation, so batching does not matter.
    """
    if training:
        return torch.rand(count, *tokens_NT.shape, device=tokens_NT.device)
    kept_KD = torch.rand(count, _DRAWS, generator=torch.Generator().manual_seed(0)).to(tokens_NT.device)
    places_T = torch.arange(tokens_NT.shape[1], device=tokens_NT.device)
    first_N1 = ((tokens_NT + 1) * (places_T + 1)).sum(1, keepdim=True)  # padding adds 0
    return kept_KD[:, (first_N1 + places_T) % _DRAWS]
