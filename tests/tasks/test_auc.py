"""The area under the ROC curve from histograms: the share of pairs in the right order, however it is batched."""

import pytest
import torch

from bigmodel.interfaces import Batch
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from named_sums import added


def test_it_is_the_share_of_pairs_in_the_right_order() -> None:
    generator = torch.Generator().manual_seed(0)
    classes_N = torch.randint(2, (500,), generator=generator)
    logits_N2 = torch.randn(500, 2, generator=generator) * 3
    logits_N2[:, 1] += classes_N
    task = Classification(CrossEntropy(), 2)
    pieces = [Batch(*pair) for pair in zip(logits_N2.split(70), classes_N.split(70), strict=True)]
    sums = added(task.eval_sums(torch.zeros(()), piece.inputs, piece) for piece in pieces)
    difference_N = logits_N2[:, 1] - logits_N2[:, 0]
    right = (difference_N[classes_N == 1][:, None] > difference_N[classes_N == 0]).double().mean().item()
    report = task.eval_metrics(sums)
    assert report["auc"] == pytest.approx(right, abs=2e-4)
    assert sum(map(sum, report["confusion"])) == 500
    only = task.eval_sums(torch.zeros(()), logits_N2, Batch(logits_N2, torch.ones_like(classes_N)))
    assert task.eval_metrics(only)["auc"] == 0.5
