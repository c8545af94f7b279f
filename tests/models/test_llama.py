"""The llama family computes what its papers say, an operation at a time; published files are not trusted."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bigmodel.config.instantiate import instantiate
from bigmodel.models.gpt import GPT
from bigmodel.models.weights.gguf_file import read_header
from bigmodel.models.weights.open_weights import is_open_weights, read_open_tensors, read_open_weights
from bigmodel.training.init_weights import init_weights
from conftest import Answer, is_quiet

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 23,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 10,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-3,
    "attention_bias": True,
    "use_sliding_window": True,
    "sliding_window": 4,
    "max_window_layers": 1,
    "rope_theta": 100.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 16},
}


def tensors() -> dict[str, torch.Tensor]:
    """Random weights under the names of published files."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (23, 16), "lm_head.weight": (23, 16)}
    shapes["model.norm.weight"] = (16,)
    for n in range(2):
        for name, (rows, columns) in {"q": (24, 16), "k": (12, 16), "v": (12, 16), "o": (16, 24)}.items():
            shapes[f"model.layers.{n}.self_attn.{name}_proj.weight"] = (rows, columns)
            shapes[f"model.layers.{n}.self_attn.{name}_proj.bias"] = (rows,)
        shapes |= {f"model.layers.{n}.self_attn.{name}_norm.weight": (6,) for name in "qk"}
        shapes |= {f"model.layers.{n}.mlp.{name}_proj.weight": (10, 16) for name in ("gate", "up")}
        shapes[f"model.layers.{n}.mlp.down_proj.weight"] = (16, 10)
        shapes |= {f"model.layers.{n}.{name}_layernorm.weight": (16,) for name in ("input", "post_attention")}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def expected_logits(weights: dict[str, torch.Tensor], tokens: list[int]) -> torch.Tensor:
    """What the model of `CONFIG` says of each next token, one token and one head after another."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weights[f"model.{name}.weight"]

    def affine(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def rotate(x_D: torch.Tensor, position: int) -> torch.Tensor:
        turned = x_D.clone()
        for pair in range(3):
            frequency = 100.0 ** (-pair / 3)
            turns = 16 * frequency / (2 * math.pi)
            share = 0.0 if turns < 1 else 1.0 if turns > 4 else (turns - 1) / 3  # of the old frequency
            angle = position * frequency * (share + (1 - share) / 8)
            a, b = x_D[pair], x_D[pair + 3]
            turned[pair], turned[pair + 3] = (
                a * math.cos(angle) - b * math.sin(angle),
                b * math.cos(angle) + a * math.sin(angle),
            )
        return turned

    x_TC = weights["model.embed_tokens.weight"][tokens]
    for n in range(2):
        layer = f"model.layers.{n}"
        h_TC = norm(x_TC, f"layers.{n}.input_layernorm")
        q, k, v = (affine(h_TC, f"{layer}.self_attn.{name}_proj").unflatten(1, (-1, 6)) for name in "qkv")
        q, k = norm(q, f"layers.{n}.self_attn.q_norm"), norm(k, f"layers.{n}.self_attn.k_norm")
        seen = torch.zeros(len(tokens), 4, 6)
        for position in range(len(tokens)):
            first = max(0, position - 3) if n == 1 else 0
            for head in range(4):
                query = rotate(q[position, head], position)
                scores = [query @ rotate(k[other, head // 2], other) for other in range(first, position + 1)]
                probs = (torch.stack(scores) / math.sqrt(6)).softmax(0)
                seen[position, head] = probs @ v[first : position + 1, head // 2]
        x_TC = x_TC + affine(seen.flatten(1), f"{layer}.self_attn.o_proj")
        h_TC = norm(x_TC, f"layers.{n}.post_attention_layernorm")
        gate, up = (affine(h_TC, f"{layer}.mlp.{name}_proj") for name in ("gate", "up"))
        x_TC = x_TC + affine(gate * gate.sigmoid() * up, f"{layer}.mlp.down_proj")
    return affine(norm(x_TC, "norm"), "lm_head")


def folder(path: Path, config: dict[str, Any] | None = None, shards: bool = False) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    weights = tensors()
    if not shards:
        save_file(weights, path / "model.safetensors")
        return path
    names = sorted(weights)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def loaded(path: Path) -> tuple[GPT, list[str]]:
    found = read_open_weights(path)
    model = instantiate("model", {"_target_": found.target, **found.keys})
    return model.eval(), init_weights(model, fresh=True, from_=str(path))


@pytest.mark.parametrize("shards", [False, True])
def test_a_published_folder_says_here_what_it_says_there(shards: bool, tmp_path: Path) -> None:
    model, told = loaded(folder(tmp_path / "m", shards=shards))
    assert told == [f"init.from={tmp_path / 'm'}: loaded 23 of 23 tensors"]
    tokens = torch.randint(23, (12,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        expected_TV = expected_logits(tensors(), tokens)
        torch.testing.assert_close(model(torch.tensor([tokens]))[0], expected_TV, atol=1e-4, rtol=1e-4)
        cache = model.cache(1)
        parts = [model(torch.tensor([tokens[a:b]]), cache) for a, b in ((0, 5), (5, 6), (6, 10), (10, 12))]
        torch.testing.assert_close(torch.cat(parts, 1)[0], expected_TV, atol=1e-4, rtol=1e-4)


def test_a_cache_grows_and_forgets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT(vocab_size=11, context=700, layers=1, heads=2, width=8, kv_heads=1).eval()
    tokens_1T = torch.randint(11, (1, 600))
    cache = model.cache(1)
    with torch.inference_mode():
        whole = model(tokens_1T)
        model(tokens_1T[:, :200], cache)
        model(tokens_1T[:, 300:350], cache)
        cache.truncate(200)
        torch.testing.assert_close(model(tokens_1T[:, 200:], cache), whole[:, 200:])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model_type": "gemma9"}, "model_type: 'gemma9' is not read; those that are: llama, mistral"),
        ({"hidden_act": "relu"}, "hidden_act: 'relu' is not computed here, only 'silu'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling: type 'yarn' is not computed here, only linear or"),
        ({"num_hidden_layers": 10**9}, "layers: a model of this size has more weights than there are"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers: must be a whole number of at least 1, got '2'"),
        ({"max_position_embeddings": 10**9}, "context: 1000000000 tokens are too many"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types: full attention after layers with a"),
    ],
)
def test_what_is_not_computed_here_is_named(changed: dict[str, Any], why: str, tmp_path: Path) -> None:
    folder(tmp_path / "m", CONFIG | changed)
    with pytest.raises(ValueError, match=r"config\.json: ") as caught:
        read_open_weights(tmp_path / "m")
    assert why in str(caught.value)


def test_an_index_names_no_file_elsewhere(tmp_path: Path) -> None:
    folder(tmp_path / "m", shards=True)
    index = {"weight_map": {"model.norm.weight": "../b.safetensors"}}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="must name safetensors files of the folder"):
        read_open_weights(tmp_path / "m")


def gguf(path: Path, settings: dict[str, Any], stored: dict[str, np.ndarray]) -> Path:
    """Write a GGUF file of plain tensors; quantized ones are those of the library."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def setting(value: Any) -> bytes:
        if isinstance(value, list):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        if isinstance(value, str):
            return struct.pack("<I", 8) + text(value)
        return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)

    head = b"GGUF" + struct.pack("<IQQ", 3, len(stored), len(settings))
    head += b"".join(text(name) + setting(value) for name, value in settings.items())
    body = b""
    for name, array in stored.items():
        kind = {np.dtype("float32"): 0, np.dtype("float16"): 1}[array.dtype]
        head += text(name) + struct.pack(f"<I{array.ndim}QIQ", array.ndim, *reversed(array.shape), kind, len(body))
        body += array.tobytes() + b"\0" * (-array.nbytes % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


def llama_cpp(path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A llama as llama.cpp stores it, and the same under published names."""
    sizes = {"block_count": 1, "context_length": 32, "embedding_length": 8, "feed_forward_length": 6}
    sizes |= {"attention.head_count": 2, "attention.head_count_kv": 1}
    settings = {"general.architecture": "llama"} | {f"llama.{name}": size for name, size in sizes.items()}
    settings |= {"llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 500.0}
    generator = torch.Generator().manual_seed(0)
    shapes = {"token_embd": (9, 8), "output_norm": (8,), "blk.0.attn_norm": (8,), "blk.0.ffn_norm": (8,)}
    shapes |= {"blk.0.attn_q": (8, 8), "blk.0.attn_k": (4, 8), "blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8)}
    shapes |= {"blk.0.ffn_gate": (6, 8), "blk.0.ffn_up": (6, 8), "blk.0.ffn_down": (8, 6)}
    stored = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    named = dict(stored)
    for name, heads in {"blk.0.attn_q.weight": 2, "blk.0.attn_k.weight": 1}.items():
        # as its converter does: rows d and d + 2 of a head become neighbours
        stored[name] = named[name].view(heads, 2, 2, 8).transpose(1, 2).reshape(-1, 8)
    arrays = {name: tensor.numpy() for name, tensor in stored.items()}
    arrays["token_embd.weight"] = arrays["token_embd.weight"].astype(np.float16)
    return gguf(path, settings, arrays), named


def test_a_gguf_file_is_the_model_it_was_made_of(tmp_path: Path) -> None:
    file, named = llama_cpp(tmp_path / "m.gguf")
    found = read_open_weights(file)
    assert {key: found.keys[key] for key in ("layers", "heads", "kv_heads", "width", "hidden", "context")} == {
        "layers": 1,
        "heads": 2,
        "kv_heads": 1,
        "width": 8,
        "hidden": 6,
        "context": 32,
    }
    assert (found.keys["rope_theta"], found.keys["norm_eps"], found.keys["tie_embeddings"]) == (500.0, 1e-5, True)
    given, remark = read_open_tensors(file)
    assert remark == "dequantized from float16, float32"
    torch.testing.assert_close(given["layers.0.self_attn.q_proj.weight"], named["blk.0.attn_q.weight"])
    torch.testing.assert_close(given["layers.0.self_attn.k_proj.weight"], named["blk.0.attn_k.weight"])
    torch.testing.assert_close(given["embed_tokens.weight"], named["token_embd.weight"].half().float())
    _, (remark, line) = loaded(file)
    assert remark == f"init.from={file}: dequantized from float16, float32"
    assert "loaded 8 of 8 tensors" in line


@pytest.mark.parametrize("length", [3, 20, 200, -40])
def test_a_damaged_gguf_file_is_refused(length: int, tmp_path: Path) -> None:
    file, _ = llama_cpp(tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"m\.gguf: "):
        read_open_tensors(file)


def test_a_gguf_header_claims_no_more_than_there_is(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    many = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 4, 2**60)
    for content in (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), many):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as GGUF"):
            read_header(file)


def test_keys_come_from_the_weights_unless_they_are_typed(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    here = tmp_path / "here"
    here.mkdir()
    folder(here / "m")
    (here / "t.txt").write_text("abcdefghijklmnopqrstuvw" * 20)
    words = ("dataset=text", "dataset.path=t.txt", "dataset.tokenizer=char", "dataset.context=8", "device=cpu")
    answer = cli(*words, "init.from=m", "model.context=16", "dry_run=true")
    assert answer.code == 0, answer.err
    assert (
        "init.from=m: model.layout=llama model.vocab_size=23 model.layers=2 model.heads=4 model.width=16" in answer.out
    )
    assert "context stays 16" in answer.out
    (line,) = is_quiet(cli(*words, "init.from=m", "model.layers=3"), code=2)
    assert line == "model.layers: got 3, but m has 2; remove the override"
    (line,) = is_quiet(cli("init.from=m"), code=2)
    assert line == "init.from: m holds the weights of another model; set model=gpt"
    assert not is_open_weights(here)
