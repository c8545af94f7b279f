"""A prediction sees what is before it in the order alone, wherever it stands; and what follows from that."""

from __future__ import annotations

import pytest
import torch

from bigmodel.interfaces import Batch
from bigmodel.models.decoding.generation import as_decoder, generate
from bigmodel.models.decoding.sampling import Sampling
from bigmodel.models.xlnet import XLNet, XLNetClassifier
from bigmodel.padding import pad
from bigmodel.tasks.permuted_language_modelling import PermutedLanguageModelling
from named_sums import added

SIZES = {"layers": 2, "heads": 2, "width": 16, "dropout": 0.0}


def _model() -> XLNet:
    torch.manual_seed(0)
    model = XLNet(vocab_size=9, context=8, **SIZES).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # the first weights would say nearly the same of every token
    return model


def test_a_prediction_sees_neither_its_own_token_nor_what_comes_later_in_the_order() -> None:
    model, kept = _model(), []
    model.encoder.embed.register_forward_hook(lambda _, __, x_NTC: kept.append(x_NTC.requires_grad_()) or x_NTC)
    tokens_NT = torch.randint(9, (1, 8), generator=torch.Generator().manual_seed(1))
    ranks_NT = torch.tensor([[0, 4, 0, 2, 5, 1, 3, 6]])
    asked_NM = torch.tensor([[7, 4, 1, 6, 3, 5]])
    tokens_NT[0, 7] = -1  # padding is seen by none
    logits_MV = model(tokens_NT, ranks_NT, asked_NM)[0]
    for place, logits_V in zip(asked_NM[0].tolist(), logits_MV, strict=True):
        (slopes_NTC,) = torch.autograd.grad(logits_V.square().sum(), kept[0], retain_graph=True)
        seen = slopes_NTC[0].abs().amax(1) > 0
        assert seen.tolist() == ((ranks_NT[0] < ranks_NT[0, place]) & (tokens_NT[0] >= 0)).tolist()


def test_what_is_hidden_is_predicted_from_all_others_and_padding_makes_no_difference() -> None:
    model = _model()
    texts = [torch.tensor(text) for text in ([3, 9, 1], [0, 8, 9, 2, 5, 1, 1, 4])]
    together = model(pad(texts, 8))
    for number, (text, place) in enumerate(zip(texts, (1, 2), strict=True)):
        torch.testing.assert_close(together[number, place], model(text[None])[0, place], rtol=1e-4, atol=1e-5)
        ranks_NT = (torch.arange(len(text)) == place).long()[None]
        for token in (0, 5):  # whatever stands there
            filled = model(text.masked_fill(text == 9, token)[None], ranks_NT, torch.tensor([[place]]))
            torch.testing.assert_close(together[number, place], filled[0, 0], rtol=1e-4, atol=1e-5)
        shown = text.clone()
        shown[-1] = 7
        assert not model(shown[None])[0, place].allclose(together[number, place], atol=1e-3)


@pytest.mark.parametrize("prompt", [1, 13])
def test_from_left_to_right_the_cache_changes_no_token(prompt: int) -> None:
    model = as_decoder(_model().requires_grad_(False))
    tokens_NT = torch.randint(9, (3, prompt), generator=torch.Generator().manual_seed(2))
    for sampling in (Sampling(temperature=0), Sampling(seed=5, top_k=7)):
        fast, slow = (generate(model, tokens_NT, 20, sampling.choose, cached=cached) for cached in (True, False))
        assert fast.equal(slow)
    assert len(set(fast.flatten().tolist())) > 3


def test_the_next_token_is_one_asked_in_the_order_of_the_text() -> None:
    model, tokens_NT = _model(), torch.tensor([[4, 0, 7, 7, 2]])
    following = as_decoder(model)(tokens_NT)
    ranks_NT, hidden_NT = torch.arange(1, 7)[None], torch.tensor([[4, 0, 7, 7, 2, 3]])
    torch.testing.assert_close(following, model(hidden_NT, ranks_NT, torch.tensor([[5]])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_last_sixth_of_a_random_order_is_asked(training: bool) -> None:
    torch.manual_seed(0)
    task = PermutedLanguageModelling(predict_fraction=1 / 6)
    lengths = torch.tensor([[1], [6], [12], [17]]).repeat(50, 1)
    tokens_NT = torch.randint(50, (200, 17)).masked_fill(torch.arange(17) >= lengths, -1)
    ranks_NT, asked_NM, targets_NM = task.permute_order(tokens_NT, training)
    assert asked_NM.shape == (200, 2)
    counts = (lengths // 6).clamp(min=1).flatten()
    assert (targets_NM >= 0).sum(1).equal(counts)
    assert (ranks_NT > 0).sum(1).equal(counts)
    asked = targets_NM >= 0
    assert targets_NM[asked].equal(tokens_NT.gather(1, asked_NM)[asked])
    assert ranks_NT.gather(1, asked_NM)[counts == 2].tolist() == [[2, 1]] * int((counts == 2).sum())
    places = asked_NM[3::4].flatten()  # of the full texts, all places alike
    assert torch.bincount(places, minlength=17).min() > 0
    assert not ranks_NT[3].equal(ranks_NT[7])


def test_training_follows_the_steps_seed_and_evaluation_the_text() -> None:
    task, model = PermutedLanguageModelling(), _model()
    tokens_NT = torch.randint(9, (12, 8), generator=torch.Generator().manual_seed(1))
    orders = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        orders.append(task.permute_order(tokens_NT, True)[0])
    assert orders[0].equal(orders[1])
    assert not orders[0].equal(orders[2])
    sums = []
    for size in (1, 5, 12):
        batches = [Batch(part, part) for part in tokens_NT.split(size)]
        sums.append(added(task.eval_sums(*task.loss(model, batch), batch) for batch in batches))
    torch.testing.assert_close(sums[0], sums[1])
    torch.testing.assert_close(sums[0], sums[2])


def test_a_classifier_has_the_weights_of_what_it_starts_from() -> None:
    own = XLNetClassifier(9, 8, 3, **SIZES).state_dict()
    before = _model().state_dict()
    assert {name for name in before if name.startswith("encoder.")} == {n for n in own if n.startswith("encoder.")}
    assert all(own[name].shape == value.shape for name, value in before.items() if name in own)
    model = XLNetClassifier(9, 8, 3, **SIZES).eval()
    texts = [torch.tensor([3]), torch.tensor([0, 8, 8, 2])]
    torch.testing.assert_close(model(pad(texts, 8))[0], model(texts[0][None])[0], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="cannot be divided among 2 heads, an even number each"):
        XLNet(9, 8, heads=2, width=6)
