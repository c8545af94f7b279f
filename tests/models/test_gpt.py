"""A token depends on what is before it alone, and generation with the cache is generation without it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bigmodel.interfaces import Batch
from bigmodel.models.decoding.generation import generate
from bigmodel.models.decoding.sampling import Sampling
from bigmodel.models.gpt import GPT
from bigmodel.models.weights.foreign_weights import load_matching
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.training.init_weights import init_weights
from named_sums import added

LAYOUTS = pytest.mark.parametrize("layout", ["llama", "gpt2", "nanogpt"])


def _model(layout: str) -> GPT:
    torch.manual_seed(0)
    model = GPT(vocab_size=11, context=8, layers=2, heads=2, width=16, layout=layout, tie_embeddings=False).eval()
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


def gpt2(layers: int, width: int, context: int, tokens: int) -> dict[str, torch.Tensor]:
    """Random weights by the names and in the layout of GPT-2's published files, causal masks included."""
    generator, c = torch.Generator().manual_seed(3), width
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (tokens, c), "wpe.weight": (context, c), "ln_f.weight": (c,)}
    shapes["ln_f.bias"] = (c,)
    for n in range(layers):
        for name, size in {"attn.c_attn": (c, 3 * c), "attn.c_proj": (c, c), "mlp.c_fc": (c, 4 * c)}.items():
            shapes |= {f"h.{n}.{name}.weight": size, f"h.{n}.{name}.bias": size[1:]}
        shapes |= {f"h.{n}.mlp.c_proj.weight": (4 * c, c), f"h.{n}.mlp.c_proj.bias": (c,)}
        shapes |= {f"h.{n}.{norm}.{kind}": (c,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        shapes[f"h.{n}.attn.bias"] = (1, 1, context, context)
    return {name: torch.randn(shape, generator=generator) * 0.5 for name, shape in shapes.items()}


def gpt2_logits(weights: dict[str, torch.Tensor], tokens_NT: torch.Tensor, heads: int) -> torch.Tensor:
    """What GPT-2 computes (Radford et al. 2019, and its authors' code), an operation at a time."""

    def affine(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    length, width = tokens_NT.shape[1], weights["wte.weight"].shape[1]
    ahead_TT = torch.ones(length, length, dtype=torch.bool).triu(1)
    x_NTC = weights["wte.weight"][tokens_NT] + weights["wpe.weight"][:length]
    for n in range(sum(name.endswith("c_attn.bias") for name in weights)):
        read = []
        for part in affine(norm(x_NTC, f"h.{n}.ln_1"), f"h.{n}.attn.c_attn").split(width, -1):
            read.append(part.unflatten(-1, (heads, width // heads)).transpose(1, 2))
        scores_NHTT = read[0] @ read[1].mT / math.sqrt(width / heads)
        seen_NHTD = scores_NHTT.masked_fill(ahead_TT, -math.inf).softmax(-1) @ read[2]
        x_NTC = x_NTC + affine(seen_NHTD.transpose(1, 2).flatten(2), f"h.{n}.attn.c_proj")
        h_NTF = affine(norm(x_NTC, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc")
        h_NTF = 0.5 * h_NTF * (1 + (math.sqrt(2 / math.pi) * (h_NTF + 0.044715 * h_NTF**3)).tanh())
        x_NTC = x_NTC + affine(h_NTF, f"h.{n}.mlp.c_proj")
    return norm(x_NTC, "ln_f") @ weights["wte.weight"].T


@pytest.mark.parametrize("tied", [True, False])
def test_weights_of_gpt2_say_here_what_they_say_there(tied: bool, tmp_path: Path) -> None:
    weights = gpt2(layers=2, width=12, context=10, tokens=11)
    named = {f"transformer.{name}": tensor for name, tensor in weights.items()}
    save_file(named | {"lm_head.weight": weights["wte.weight"].clone()}, tmp_path / "gpt2.safetensors")
    model = GPT(vocab_size=11, context=8, layers=2, heads=3, width=12, layout="gpt2", tie_embeddings=tied).eval()
    told = init_weights(model, fresh=True, from_=str(tmp_path / "gpt2.safetensors"), strip_prefix="transformer.")
    count = 2 + 2 * 12 + 2 + (not tied)
    assert told == [f"init.from={tmp_path / 'gpt2.safetensors'}: loaded {count} of {count} tensors"]
    tokens_NT = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(model(tokens_NT), gpt2_logits(weights, tokens_NT, heads=3))


def test_weights_of_gpt2_are_refused_where_they_would_mean_something_else() -> None:
    weights = gpt2(layers=1, width=12, context=8, tokens=11)
    sizes = {"vocab_size": 11, "context": 8, "layers": 1, "heads": 3, "width": 12}
    with pytest.raises(ValueError, match=r"gpt2\.pt: these weights are GPT-2's; set model\.layout=gpt2"):
        load_matching(GPT(**sizes), weights, "gpt2.pt")
    weights["lm_head.weight"] = torch.zeros(11, 12)
    with pytest.raises(ValueError, match=r"set model\.tie_embeddings=false"):
        load_matching(GPT(**sizes, layout="gpt2"), weights, "gpt2.pt")


def test_sampling_keeps_to_what_is_likely_and_repeats_by_seed_and_position() -> None:
    logits_NV, tokens_NT = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(2000, 4), torch.zeros(2000, 1).long()

    def drawn(**how: float) -> list[float]:
        return (torch.bincount(Sampling(**how).choose(logits_NV, tokens_NT, range(2000)), minlength=4) / 2000).tolist()

    assert drawn(temperature=0) == drawn(top_k=1) == drawn(top_p=0.4) == [1, 0, 0, 0]
    assert drawn(top_k=2)[2:] == drawn(top_p=0.6)[2:] == drawn(min_p=0.5)[2:] == [0, 0]
    assert drawn() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)
    assert drawn(temperature=0.5)[0] == pytest.approx(0.25 / 0.365, abs=0.04)
    assert drawn() == drawn(seed=0) != drawn(seed=1)
    first, second = (Sampling().choose(logits_NV, tokens_NT, range(n, n + 2000)) for n in (0, 1))
    assert not first.equal(second)
    assert first[1:].equal(second[:-1])


def test_perplexity_is_that_of_all_tokens_however_they_are_batched() -> None:
    task = LanguageModelling(bytes_per_token=2.0)
    inputs, targets = torch.arange(12).view(3, 4) % 5, torch.tensor([[1, 2, -1, -1], [0, 1, 2, 3], [4, -1, -1, -1]])
    torch.manual_seed(0)
    model = torch.nn.Embedding(5, 5)

    def sums(batch: Batch) -> dict[str, torch.Tensor]:
        return task.eval_sums(*task.loss(model, batch), batch)

    whole = task.eval_metrics(sums(Batch(inputs, targets)))
    parts = added(sums(piece) for piece in Batch(inputs, targets).microbatches(3))
    assert task.eval_metrics(parts) == pytest.approx(whole)
    log_probs = model.weight.log_softmax(1)[inputs].gather(2, targets.clamp(min=0)[..., None])[..., 0][targets >= 0]
    assert whole["loss"] == pytest.approx(-log_probs.mean().item())
    assert whole["perplexity"] == pytest.approx(math.exp(whole["loss"]))
    assert whole["bits_per_byte"] == pytest.approx(whole["loss"] / math.log(2) / 2)
