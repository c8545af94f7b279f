"""Open weights say here what they say in the library that they were published with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.commands.hub_folder import write_hub_folder
from bigmodel.config.instantiate import instantiate
from bigmodel.datasets.text.tokenizers import published_tokenizer
from bigmodel.models.decoding.generation import generate
from bigmodel.models.decoding.sampling import Sampling, TextSampling
from bigmodel.models.gpt import GPT
from bigmodel.models.weights.open_weights import read_open_weights
from bigmodel.padding import pad
from bigmodel.training.init_weights import init_weights

DATA = Path(os.environ.get("BIGMODEL_DATA_DIR", "data")) / "models"
SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
SIZES |= {"max_position_embeddings": 64, "num_key_value_heads": 2, "tie_word_embeddings": False}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES},
    "llama with biases": {"model_type": "llama", **SIZES, "attention_bias": True, "rms_norm_eps": 1e-3},
    "llama 3": {
        "model_type": "llama",
        **SIZES,
        "rope_parameters": LLAMA3 | {"original_max_position_embeddings": 16, "rope_theta": 500.0},
    },
    "llama, linear": {
        "model_type": "llama",
        **SIZES,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    },
    "smollm2": {"model_type": "llama", **SIZES, "tie_word_embeddings": True, "num_key_value_heads": 1},
    "mistral": {"model_type": "mistral", **SIZES, "sliding_window": 5, "head_dim": 12},
    "qwen2": {"model_type": "qwen2", **SIZES},
    "qwen2 with windows": {
        "model_type": "qwen2",
        **SIZES,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 2,
    },
    "qwen3": {"model_type": "qwen3", **SIZES, "head_dim": 16},
    "gpt2": {"model_type": "gpt2", "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}


def loaded(folder: Path, adapter: str | None = None) -> tuple[GPT, list[str]]:
    found = read_open_weights(folder)
    model = instantiate("model", {"_target_": found.target, **found.keys})
    return model.eval(), init_weights(model, fresh=True, from_=str(folder), adapter=adapter)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**FAMILIES[family])
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    ours, (line,) = loaded(tmp_path)
    assert "newly" not in line
    assert "unused" not in line
    tokens_NT = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected_NTV = theirs(tokens_NT).logits
        torch.testing.assert_close(ours(tokens_NT), expected_NTV, atol=1e-4, rtol=1e-4)
        assert (expected_NTV[0, 1:] - expected_NTV[0, :-1]).abs().amax() > 0.1
        answer = theirs.generate(tokens_NT[:1, :6], max_new_tokens=20, do_sample=False, eos_token_id=None)[:, 6:]
        write_hub_folder(tmp_path / "hub", ours, read_open_weights(tmp_path).keys, {"name": "byte"}, None)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hub").eval()
        torch.testing.assert_close(again(tokens_NT).logits, expected_NTV, atol=1e-4, rtol=1e-4)
        assert generate(ours, tokens_NT[:1, :6], 20, Sampling(temperature=0).choose).equal(answer)
        wanted = {"max_new_tokens": 20, "eos_token_id": None, "do_sample": False, "repetition_penalty": 1.3}
        prompts_NT = tokens_NT[:, :6].index_fill(1, torch.tensor([0, 1]), -1)
        prompts_NT[0] = tokens_NT[0, :6]  # the other is shorter, and padded on its left
        alone = [theirs.generate(row[row >= 0][None], **wanted)[0, -20:] for row in prompts_NT]
        sampling = TextSampling(temperature=0, repetition_penalty=1.3)
        assert generate(ours, prompts_NT, 20, sampling.choose).equal(torch.stack(alone))


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"min_p": 0.2}, {"top_k": 7, "min_p": 0.1}, {"top_p": 0.8}, {"temperature": 0.5}])
def test_the_tokens_to_draw_from_are_those_of_transformers(given: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    names = {"temperature": "Temperature", "top_k": "TopK", "top_p": "TopP", "min_p": "MinP"}
    ordered = [(name, given[name]) for name in names if name in given]
    logits_NV = torch.randn(1, 61, generator=torch.Generator().manual_seed(1)) * 3
    expected_NV = logits_NV
    for name, value in ordered:
        expected_NV = getattr(transformers, f"{names[name]}LogitsWarper")(value)(None, expected_NV)
    expected_V = expected_NV.softmax(1)[0]
    tokens_NT = torch.zeros(1, 1, dtype=torch.int64)
    drawn = [int(Sampling(seed=seed, **given).choose(logits_NV, tokens_NT, [1])) for seed in range(3000)]
    found_V = torch.tensor(drawn).bincount(minlength=61) / len(drawn)
    assert not found_V[expected_V == 0].any()
    torch.testing.assert_close(found_V, expected_V, atol=0.04, rtol=0)


@pytest.mark.slow
def test_a_chat_model_says_what_it_says_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    file = DATA / "smollm2-135m-instruct.q4_1.gguf"
    if not file.is_file():
        pytest.skip(f"there is no {file}; BIGMODEL_DATA_DIR names the folder of models/")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(DATA, gguf_file=file.name, dtype=torch.float32)
    ours, lines = loaded(file)
    said = ("dequantized from Q4_1, Q8_0, float32", "loaded 182 of 182 tensors")
    assert lines == [f"init.from={file}: {text}" for text in said]
    tokens_NT = torch.randint(49152, (1, 50), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(tokens_NT), theirs.eval()(tokens_NT).logits, atol=1e-4, rtol=1e-4)


ENCODERS: dict[str, dict[str, Any]] = {
    kind: {"model_type": kind, **SIZES, "max_position_embeddings": 40} for kind in ("bert", "roberta")
}


@pytest.mark.slow
@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_computes_what_transformers_does(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**ENCODERS[family], pad_token_id=1)
    torch.manual_seed(0)
    theirs = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    ours, line = encoder(tmp_path)
    assert "2 newly initialized: classify.weight, classify.bias; 2 unused in the file: pooler" in line
    compare_encoders(ours, theirs, torch.randint(2, 61, (3, 30), generator=torch.Generator().manual_seed(1)), pad=1)


@pytest.mark.slow
def test_minilm_computes_what_it_does_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    folder = DATA / "all-minilm-l6-v2"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}; BIGMODEL_DATA_DIR names the folder of models/")
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ours, _ = encoder(folder)
    made = published_tokenizer(folder, 30522, 40)
    texts = ["What is the capital of France?", "A dull film, and far too long; nobody laughed. " * 9]
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    assert [made.encode(text).tolist() for text in texts] == [
        reference(text, truncation=True, max_length=40)["input_ids"] for text in texts
    ]
    compare_encoders(ours, theirs, pad([torch.from_numpy(made.encode(text)) for text in texts]), pad=0)


def encoder(folder: Path) -> tuple[Any, str]:
    found = read_open_weights(folder)
    model = instantiate("model", {"_target_": found.target, **found.keys, "num_classes": 3})
    (line,) = init_weights(model, fresh=True, from_=str(folder))
    return model.eval(), line


def compare_encoders(ours: Any, theirs: Any, tokens_NT: torch.Tensor, pad: int) -> None:
    """Compare the last hidden states of texts of unequal length, where they hold tokens."""
    tokens_NT = tokens_NT.clone()
    tokens_NT[0, 20:] = -1
    mask_NT = tokens_NT >= 0
    with torch.inference_mode():
        expected = theirs(tokens_NT.where(mask_NT, pad), attention_mask=mask_NT.long()).last_hidden_state
        torch.testing.assert_close(ours.encoder(tokens_NT)[mask_NT], expected[mask_NT], atol=1e-4, rtol=1e-4)
