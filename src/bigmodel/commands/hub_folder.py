"""Write a language model as a folder that other libraries load: config.json, safetensors and tokenizer.json.

The inverse of `models.weights.open_weights`, for models of this package that equal a published architecture.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from bigmodel.models.gpt import GPT
from bigmodel.models.weights import gpt2_names, llama_names
from bigmodel.models.weights.hub_config import Keys
from bigmodel.safe_files import write_json

__all__ = ["hub_config", "hub_weights", "write_hub_folder"]

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}


def write_hub_folder(
    folder: Path, model: GPT, keys: Keys, tokenizer: Mapping[str, Any], chat: Mapping[str, Any] | None
) -> list[str]:
    """Write a model, built with the arguments `keys`, its tokenizer and chat template; return lines about the rest.

    Raises:
        ValueError: no published architecture computes what the model does.
    """
    config = hub_config(model, keys)
    named = hub_weights(model, config, model.state_dict())
    stop = list(chat["stop"]) if chat else []
    if stop:
        config["eos_token_id"] = stop if len(stop) > 1 else stop[0]
    folder.mkdir()
    save_file(
        {name: t.contiguous().clone() for name, t in named.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    write_json(folder / "config.json", config)
    if "definition" not in tokenizer:
        return [f"tokenizer.json: left out, a tokenizer of type {tokenizer.get('name')} has none"]
    (folder / "tokenizer.json").write_text(str(tokenizer["definition"]), encoding="utf-8")
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.context}
    if chat:
        settings |= {**chat["special"], "chat_template": chat["template"]}
    write_json(folder / "tokenizer_config.json", settings)
    return []


def hub_weights(model: GPT, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the model, not all perhaps, under the names and in the layout of its published architecture."""
    if config["model_type"] == "gpt2":
        return gpt2_names.to_gpt2(weights)
    return llama_names.to_llama(weights, config["num_attention_heads"], model.kv_heads, model.head_width)


def hub_config(model: GPT, keys: Keys) -> dict[str, Any]:
    """Return config.json of a model that was built with the arguments `keys`.

    Raises:
        ValueError: no published architecture computes what the model does.
    """
    defaults = {name: one.default for name, one in inspect.signature(GPT).parameters.items()}
    keys = defaults | {key: value for key, value in keys.items() if key in defaults}
    shared = {"vocab_size": keys["vocab_size"], "tie_word_embeddings": keys["tie_embeddings"], "dtype": "float32"}
    plain = not (keys["head_width"] or keys["qk_norm"] or keys["window"]) and model.kv_heads == keys["heads"]
    if keys["layout"] == "gpt2" and keys["attention_bias"] in (None, "all") and plain:
        return shared | {
            "model_type": "gpt2",
            "architectures": [_CLASSES["gpt2"]],
            "n_embd": keys["width"],
            "n_layer": keys["layers"],
            "n_head": keys["heads"],
            "n_positions": keys["context"],
            "n_inner": keys["hidden"],
            "layer_norm_epsilon": keys["norm_eps"],
            "activation_function": "gelu_new",
        }
    if keys["layout"] != "llama":
        raise ValueError(f"model.layout: no published architecture is the layout {keys['layout']} with these keys")
    kind = _family(keys)
    first_block = model.state_dict()["blocks.0.mlp.down.weight"]
    scaling = dict(keys["rope_scaling"] or {"type": "default"})
    names = {"type": "rope_type", "original_context": "original_max_position_embeddings"}
    rope = {names.get(key, key): value for key, value in scaling.items()}
    windows = {"sliding_window": keys["window"]}
    if kind.startswith("qwen"):
        windows |= {"use_sliding_window": keys["window"] is not None, "max_window_layers": keys["full_layers"]}
    return (
        shared
        | ({} if kind == "llama" else windows)
        | {
            "model_type": kind,
            "architectures": [_CLASSES[kind]],
            "hidden_size": keys["width"],
            "intermediate_size": first_block.shape[1],
            "num_hidden_layers": keys["layers"],
            "num_attention_heads": keys["heads"],
            "num_key_value_heads": model.kv_heads,
            "head_dim": model.head_width,
            "hidden_act": "silu",
            "max_position_embeddings": keys["context"],
            "rms_norm_eps": keys["norm_eps"],
            "attention_bias": keys["attention_bias"] == "all",
            "rope_theta": keys["rope_theta"],
            "rope_scaling": rope if keys["rope_scaling"] else None,
            "rope_parameters": rope | {"rope_theta": keys["rope_theta"]},
        }
    )


def _family(keys: Keys) -> str:
    biases, window = keys["attention_bias"] or "none", keys["window"]
    if keys["qk_norm"] and biases != "qkv":
        return "qwen3"
    if not keys["qk_norm"] and biases == "qkv":
        return "qwen2"
    if not keys["qk_norm"] and biases == "none" and window and not keys["full_layers"]:
        return "mistral"
    if not keys["qk_norm"] and not window:
        return "llama"
    raise ValueError(
        f"model.attention_bias: no published architecture has {biases} with qk_norm={keys['qk_norm']}, window={window}"
    )
