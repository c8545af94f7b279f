"""A token depends on what is before it alone, and generation with the cache is generation without it."""

from __future__ import annotations

import math

import pytest
import torch

from bigmodel.interfaces import Batch
from bigmodel.models.gpt import GPT
from bigmodel.predicting.generation import generate
from bigmodel.predicting.sampling import Sampling
from bigmodel.tasks.language_modelling import LanguageModelling

LAYOUTS = pytest.mark.parametrize("layout", ["llama", "gpt2", "nanogpt"])


def _model(layout: str) -> GPT:
    torch.manual_seed(0)
    model = GPT(vocab_size=11, context=8, layers=2, heads=2, width=16, layout=layout, tied=False).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # the first weights would say nearly the same of every token
    return model


@LAYOUTS
def test_a_token_depends_on_what_is_before_it_alone(layout: str) -> None:
    model, tokens_NT = _model(layout), torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    logits = model(tokens_NT)
    changed_NT = tokens_NT.clone()
    changed_NT[:, 5] = (tokens_NT[:, 5] + 1) % 11
    changed = model(changed_NT)
    torch.testing.assert_close(changed[:, :5], logits[:, :5])
    assert (changed[:, 5:] - logits[:, 5:]).abs().amax((0, 2)).min() > 1e-3
    torch.testing.assert_close(model(tokens_NT[:, :3]), logits[:, :3])


@LAYOUTS
@pytest.mark.parametrize("prompt", [1, 8, 13])
def test_the_cache_changes_no_token(layout: str, prompt: int) -> None:
    model = _model(layout)
    tokens_NT = torch.randint(11, (3, prompt), generator=torch.Generator().manual_seed(2))
    for sampling in (Sampling(temperature=0), Sampling(seed=5, top_k=7, top_p=0.9)):
        with torch.inference_mode():
            fast, slow = (generate(model, tokens_NT, 25, sampling.choose, cached=cached) for cached in (True, False))
        assert fast.shape == (3, 25)
        assert fast.equal(slow)
    assert len(set(fast.flatten().tolist())) > 3


def test_the_published_layout_has_the_published_size() -> None:
    with torch.device("meta"):
        model = GPT(50257, 1024, layers=12, heads=12, width=768, layout="gpt2")
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808


def test_sampling_keeps_to_what_is_likely_and_repeats_by_seed_and_position() -> None:
    logits_NV = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(2000, 4)

    def drawn(**how: float) -> list[float]:
        return (torch.bincount(Sampling(**how).choose(logits_NV, 3), minlength=4) / 2000).tolist()

    assert drawn(temperature=0) == drawn(top_k=1) == drawn(top_p=0.4) == [1, 0, 0, 0]
    assert drawn(top_k=2)[2:] == drawn(top_p=0.6)[2:] == [0, 0]
    assert drawn() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)
    assert drawn(temperature=0.5)[0] == pytest.approx(0.25 / 0.365, abs=0.04)
    assert drawn() == drawn(seed=0) != drawn(seed=1)
    assert not Sampling().choose(logits_NV, 3).equal(Sampling().choose(logits_NV, 4))


def test_perplexity_is_that_of_all_tokens_however_they_are_batched() -> None:
    task = LanguageModelling(bytes_per_token=2.0)
    inputs, targets = torch.arange(12).view(3, 4) % 5, torch.tensor([[1, 2, -1, -1], [0, 1, 2, 3], [4, -1, -1, -1]])
    torch.manual_seed(0)
    model = torch.nn.Embedding(5, 5)

    def sums(batch: Batch) -> torch.Tensor:
        return task.examination(*task.loss(model, batch), batch)

    whole = task.report(sums(Batch(inputs, targets)).tolist())
    parts = sum(sums(piece) for piece in Batch(inputs, targets).pieces(3))
    assert task.report(parts.tolist()) == pytest.approx(whole)
    odds = model.weight.log_softmax(1)[inputs].gather(2, targets.clamp(min=0)[..., None])[..., 0][targets >= 0]
    assert whole["loss"] == pytest.approx(-odds.mean().item())
    assert whole["perplexity"] == pytest.approx(math.exp(whole["loss"]))
    assert whole["bits_per_byte"] == pytest.approx(whole["loss"] / math.log(2) / 2)
