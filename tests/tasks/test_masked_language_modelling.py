"""Hidden tokens: the shares of Devlin et al., no draw of its own, and metrics that no batching changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch
from bigmodel.tasks.masked_language_modelling import MaskedLanguageModelling
from named_sums import added


class Odds(nn.Module):
    """Logits that follow from the shown tokens: of token n it says n + 1."""

    def forward(self, tokens_NT: Tensor) -> Tensor:
        return nn.functional.one_hot((tokens_NT + 1) % 50, 50).float()


@pytest.mark.parametrize("training", [True, False])
def test_of_every_hundred_tokens_fifteen_are_asked_and_twelve_of_them_hidden(training: bool) -> None:
    torch.manual_seed(0)
    task = MaskedLanguageModelling(vocab_size=50)
    tokens_NT = torch.randint(50, (400, 100))
    tokens_NT[:, 90:] = -1
    shown_NT, asked_NT = task.mask_tokens(tokens_NT, training)
    assert not asked_NT[:, 90:].any()
    assert shown_NT[~asked_NT].equal(tokens_NT[~asked_NT])
    assert asked_NT[:, :90].float().mean() == pytest.approx(0.15, abs=0.01)
    shown, true = shown_NT[asked_NT], tokens_NT[asked_NT]
    assert (shown == 50).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == true).float().mean() == pytest.approx(0.1 + 0.1 / 50, abs=0.015)
    assert ((shown >= 0) & (shown <= 50)).all()


def test_training_follows_the_steps_seed_and_evaluation_the_text() -> None:
    task, model = MaskedLanguageModelling(vocab_size=50), Odds()
    tokens_NT = torch.randint(50, (30, 20), generator=torch.Generator().manual_seed(1))
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(task.mask_tokens(tokens_NT, True)[1])
    assert masks[0].equal(masks[1])
    assert not masks[0].equal(masks[2])
    before = torch.get_rng_state()
    model.eval()
    sums = []
    for size in (1, 7, 30):
        batches = [Batch(part, part) for part in tokens_NT.split(size)]
        sums.append(added(task.eval_sums(*task.loss(model, batch), batch) for batch in batches))
    assert torch.get_rng_state().equal(before)
    for other in sums[1:]:
        torch.testing.assert_close(sums[0], other)
    nothing = Batch(torch.full((1, 4), -1), torch.zeros(1))
    assert task.loss(model, nothing)[0] == 0
    assert task.eval_metrics(task.eval_sums(*task.loss(model, nothing), nothing)) == {"loss": 0, "accuracy": 0}
