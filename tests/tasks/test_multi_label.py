"""Labels with gaps: what is unknown counts neither in the loss nor in the AUC, however it is batched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bigmodel.interfaces import Batch
from bigmodel.tasks.multi_label import MultiLabel
from named_sums import added


def test_unknown_labels_count_nowhere() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NK = 3 * torch.randn(200, 3, generator=generator, requires_grad=True)
    logits_NK.retain_grad()
    truth_NK = (logits_NK.detach() + 3 * torch.randn(200, 3, generator=generator) > 0).float()
    truth_NK[torch.rand(200, 3, generator=generator) < 0.4] = torch.nan
    truth_NK[:, 2] = truth_NK[:, 2] * 0  # of the last label there are no samples with it
    known_NK = ~truth_NK.isnan()
    task = MultiLabel(["a", "b", "c"])

    loss, _ = task.loss(nn.Identity(), Batch(logits_NK, truth_NK))
    expected = F.binary_cross_entropy_with_logits(logits_NK[known_NK], truth_NK[known_NK])
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits_NK.grad is not None
    assert torch.equal(logits_NK.grad != 0, known_NK)

    areas = []
    for logits_N, truth_N in zip(logits_NK.detach().T[:2], truth_NK.T[:2], strict=True):
        areas.append((logits_N[truth_N == 1][:, None] > logits_N[truth_N == 0]).double().mean().item())
    for size in (200, 70):
        pieces = [Batch(*pair) for pair in zip(logits_NK.detach().split(size), truth_NK.split(size), strict=True)]
        sums = added(task.eval_sums(*task.loss(nn.Identity(), piece), piece) for piece in pieces)
        report = task.eval_metrics(sums)
        assert report["loss"] == pytest.approx(expected.item(), rel=1e-5)
        assert report["per_label_auc"][:2] == pytest.approx(areas, abs=1e-3)
        assert report["per_label_auc"][2] is None
        assert report["auc"] == pytest.approx(sum(areas) / 2, abs=1e-3)


def test_a_batch_of_which_nothing_is_known_teaches_nothing() -> None:
    batch, task = Batch(torch.ones(2, 1, requires_grad=True), torch.full((2, 1), torch.nan)), MultiLabel(["a"])
    loss, outputs = task.loss(nn.Identity(), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert (loss.item(), batch.inputs.grad is not None and batch.inputs.grad.any().item()) == (0.0, False)
    report = task.eval_metrics(task.eval_sums(loss.detach(), outputs.detach(), batch))
    assert report == {"loss": 0.0, "auc": 0.5, "per_label_auc": [None]}
    with pytest.raises(ValueError, match="this data has no labels"):
        MultiLabel(None)
