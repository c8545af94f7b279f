"""What is beside a pair in its batch makes no difference to it, and the search finds what is likeliest."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from bigmodel.models.decoding.seq2seq_search import beam_search
from bigmodel.models.seq2seq import Seq2Seq
from bigmodel.padding import pad


def _model(vocab_size: int = 7, context: int = 8) -> Seq2Seq:
    torch.manual_seed(0)
    model = Seq2Seq(vocab_size, context, heads=2, width=16).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # the first weights would say nearly the same of every token
    return model


SOURCES = [torch.tensor(tokens) for tokens in ([3], [0, 6, 6, 2], [1, 2, 3, 4, 5, 6, 0, 1])]


def test_a_target_token_depends_on_its_source_and_what_is_before_it_alone() -> None:
    model = _model()
    begun_NT = torch.tensor([[7, 1, 2, 3, -1, -1], [7, 4, 5, -1, -1, -1], [7, 0, 0, 0, 1, 2]])
    together = model(torch.cat([pad(SOURCES, 8), begun_NT], dim=1))
    for number, source in enumerate(SOURCES):
        alone = model.decode(begun_NT[number, None, :3], model.encode(source[None]))[0]
        torch.testing.assert_close(together[number, :3], alone, rtol=1e-5, atol=1e-5)
    changed = model(torch.cat([pad(SOURCES, 8), begun_NT.where(begun_NT != 5, 6)], dim=1))
    assert changed[1, :2].equal(together[1, :2])
    assert not changed[1, 2].allclose(together[1, 2], atol=1e-3)
    other = model(torch.cat([pad(SOURCES[::-1], 8), begun_NT], dim=1))
    assert not other[0].allclose(together[0], atol=1e-3)
    with pytest.raises(ValueError, match="cannot be divided among 3 heads, an even number each"):
        Seq2Seq(7, 8, heads=3, width=9)


@pytest.mark.parametrize("beam", [1, 4])
def test_neither_the_cache_nor_the_batch_changes_a_token(beam: int) -> None:
    model, source_NS = _model(), pad(SOURCES, 8)
    fast, log_probs = beam_search(model, source_NS, beam)
    slow, same = beam_search(model, source_NS, beam, cached=False)
    assert fast.equal(slow)
    torch.testing.assert_close(log_probs, same)
    assert (fast >= 0).any(2).any()
    for number, source in enumerate(SOURCES):
        alone, _ = beam_search(model, source[None], beam)
        assert pad([*alone[0]], fast.shape[2]).equal(fast[number])


def test_greedy_decoding_takes_the_likeliest_token_each_time() -> None:
    model = _model()
    for source in SOURCES:
        begun = [7]
        while len(begun) == 1 or (begun[-1] != 7 and len(begun) < 10):
            begun.append(int(model.decode(torch.tensor([begun]), model.encode(source[None]))[0, -1].argmax()))
        found = beam_search(model, source[None], 1)[0][0, 0].tolist()
        assert [token for token in found if token >= 0] == [token for token in begun[1:] if token != 7]


def test_a_beam_as_wide_as_all_targets_finds_each_with_its_probability() -> None:
    model, source_NS = _model(vocab_size=2, context=2), torch.tensor([[1, 0], [1, -1]])
    possible = [target for length in range(4) for target in itertools.product([0, 1], repeat=length)]
    found_NBT, log_probs_NB = beam_search(model, source_NS, 20)
    assert torch.isinf(log_probs_NB).sum(1).tolist() == [20 - len(possible)] * 2
    torch.testing.assert_close(log_probs_NB.exp().sum(1), torch.ones(2))
    assert log_probs_NB.diff(dim=1).nan_to_num(0).max() <= 0
    for number in range(2):
        rows = zip(found_NBT[number].tolist(), log_probs_NB[number].tolist(), strict=True)
        log_probs = {tuple(token for token in row if token >= 0): one for row, one in rows if one > -math.inf}
        for target in possible:
            begun_NT, memory = torch.tensor([[2, *target][:3]]), model.encode(source_NS[number, None])
            said = model.decode(begun_NT, memory)[0].log_softmax(1)
            path = [*target, 2][:3]  # nothing follows the third
            assert log_probs[target] == pytest.approx(
                sum(float(said[n, token]) for n, token in enumerate(path)), abs=1e-4
            )
