"""Cross-entropy with weights of the classes: exact over samples however they fall into batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bigmodel.tasks.losses import CrossEntropy, balanced

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 0, 0, 0, 1, 2])


def test_without_weights_nothing_changes() -> None:
    for smoothing in (0.0, 0.1):
        plain = F.cross_entropy(LOGITS, TARGETS, label_smoothing=smoothing)
        assert CrossEntropy(smoothing)(LOGITS, TARGETS).equal(plain)
        assert torch.allclose(CrossEntropy(smoothing, [1, 1, 1])(LOGITS, TARGETS), plain)


def test_a_sample_counts_by_the_weight_of_its_class() -> None:
    loss = CrossEntropy(weight=[1.0, 2.0, 0.0])
    each = [F.cross_entropy(LOGITS[n : n + 1], TARGETS[n : n + 1]) for n in range(6)]
    expected = (sum(each[:4]) + 2 * each[4]) / 6
    assert torch.allclose(loss(LOGITS, TARGETS), expected)
    halves = (loss(LOGITS[:2], TARGETS[:2]) * 2 + loss(LOGITS[2:], TARGETS[2:]) * 4) / 6
    assert torch.allclose(halves, expected)
    assert torch.allclose(loss(LOGITS, F.one_hot(TARGETS, 3).float()), expected)


def test_balanced_weights_make_classes_count_alike() -> None:
    weights = balanced(torch.tensor([4, 1, 1, 0]))
    assert weights == [0.5, 2.0, 2.0, 0.0]
    assert sum(w * n for w, n in zip(weights, (4, 1, 1, 0), strict=True)) == 6


def test_weights_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="weight: has 2 numbers, for 3 classes"):
        CrossEntropy(weight=[1, 2])(LOGITS, TARGETS)
    with pytest.raises(ValueError, match="weight: balanced needs the counts"):
        CrossEntropy(weight="balanced")(LOGITS, TARGETS)
