"""A batch in pieces gives the gradient of the whole, also where the pieces have more and less to learn from."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch, Task
from bigmodel.runtime.device import Device
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.tasks.masked_language_modelling import MaskedLanguageModelling
from bigmodel.tasks.multi_label import MultiLabel
from bigmodel.tasks.permuted_language_modelling import PermutedLanguageModelling
from bigmodel.training.state import TrainState

CPU = Device("cpu")
VOCABULARY = 7


class _SamePrediction(nn.Module):
    """Logits (N, T, V) that no input changes: what is hidden or replaced by chance makes no difference."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, VOCABULARY))

    def forward(self, tokens_NT: Tensor, ranks_NT: Tensor | None = None, asked_NM: Tensor | None = None) -> Tensor:
        return self.logits.expand(*(tokens_NT if asked_NM is None else asked_NM).shape, VOCABULARY)


def _linear() -> nn.Module:
    return nn.Linear(3, 4)


def _texts() -> Batch:
    """Of 7, 1, 1, 1 and 0 tokens: pieces of samples have nothing in common with pieces of tokens."""
    tokens = torch.randint(VOCABULARY, (5, 7))
    for row, length in enumerate((7, 1, 1, 1, 0)):
        tokens[row, length:] = -1
    return Batch(tokens, tokens)


def _labels() -> Batch:
    targets = torch.randint(2, (5, 4)).float()
    targets[1:] = torch.nan
    targets[4, 2] = 1.0
    return Batch(torch.randn(5, 3), targets)


CASES: list[tuple[Task, Callable[[], nn.Module], Callable[[], Batch]]] = [
    (LanguageModelling(), _SamePrediction, _texts),
    (MaskedLanguageModelling(VOCABULARY, mask_probability=1.0), _SamePrediction, _texts),
    (PermutedLanguageModelling(predict_fraction=1.0), _SamePrediction, _texts),
    (MultiLabel(["a", "b", "c", "d"]), _linear, _labels),
]
NAMES = [type(task).__name__ for task, _, _ in CASES]


def _job(task: Task, model: nn.Module, pieces: int) -> TrainState:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainState(
        model=model,
        task=task,
        optimizers=[optimizer],
        schedule=lambda progress: 1.0,
        device=CPU,
        seed=0,
        steps=1,
        accumulate=pieces,
    )


@pytest.mark.parametrize(("task", "made", "batches"), CASES, ids=NAMES)
@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_the_gradient_is_that_of_the_whole(
    task: Task, made: Callable[[], nn.Module], batches: Callable[[], Batch], pieces: int
) -> None:
    torch.manual_seed(1)
    model, batch = made(), batches()
    gradients = []
    for count in (1, pieces):
        _, sums = _job(task, model, count).forward_backward(batch)
        assert all(map(math.isfinite, task.train_metrics(sums).values()))
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad()
    for whole, summed in zip(*gradients, strict=True):
        assert whole is not None
        assert whole.abs().max() > 0
        torch.testing.assert_close(summed, whole, rtol=1e-5, atol=1e-7)
