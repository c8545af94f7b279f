"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): prefer chosen answers to rejected ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import Positive
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import MetricSpec
from bigmodel.models.weights.reference import reference_outputs
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["Preference"]


class Preference:
    """Pairs of answers: inputs and targets (N, T, 2) int, chosen and rejected, -1 = none; the model (N, T) to
    (N, T, V).

    An answer's implicit reward is `beta` times the logarithm of how much likelier it is by the model than by the
    reference, the model as it was. The loss is -log sigmoid of the margin between the rewards; a pair counts as
    accurate where its margin is positive.
    """

    compares_with_reference = True
    metric_names = ("loss", "reward_accuracy", "reward_margin", "chosen_reward")
    metric_specs: Mapping[str, MetricSpec] = {
        "loss": MetricSpec("min", "nats/pair"),
        "reward_accuracy": MetricSpec("max", "of pairs", ".2%"),
        "reward_margin": MetricSpec("max", "nats"),
        "chosen_reward": MetricSpec("max", "nats"),
    }

    def __init__(self, beta: Positive = 0.1) -> None:
        self._beta = beta

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a pair, and the rewards (N, 2)."""
        tokens_XT, targets_XT = (one.transpose(1, 2).flatten(0, 1) for one in (batch.inputs, batch.targets))
        reference_X = log_likelihoods(reference_outputs(model, tokens_XT), targets_XT)
        rewards_N2 = self._beta * (log_likelihoods(model(tokens_XT), targets_XT) - reference_X).view(-1, 2)
        return -F.logsigmoid(rewards_N2[:, 0] - rewards_N2[:, 1]).mean(), rewards_N2

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        chosen_N, rejected_N = outputs.unbind(1)
        return loss_sums(loss, len(outputs)) | {
            "accurate": (chosen_N > rejected_N).sum(),
            "margin": (chosen_N - rejected_N).sum(),
            "chosen": chosen_N.sum(),
        }

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        names = {"reward_accuracy": "accurate", "reward_margin": "margin", "chosen_reward": "chosen"}
        count = max(1.0, float(sums["loss_denominator"]))
        return {"loss": mean_loss(sums)} | {name: float(sums[key]) / count for name, key in names.items()}

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        return self.train_sums(loss, outputs, batch)

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        return self.train_metrics(sums)


def log_likelihoods(logits_XTV: Tensor, targets_XT: Tensor) -> Tensor:
    """Return the log-likelihood of each sequence's targets (X,), float32."""
    losses_XT = F.cross_entropy(
        logits_XTV.flatten(0, 1).float(), targets_XT.flatten().long(), ignore_index=-1, reduction="none"
    )
    return -losses_XT.view_as(targets_XT).sum(1)
