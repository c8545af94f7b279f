"""Read the `config.json` of published weights as the keys of this package's models. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Keys = dict[str, Any]

GPT, BERT = "bigmodel.models.gpt.GPT", "bigmodel.models.bert.BertClassifier"
_LARGEST = 1 << 31
_ROPE_TYPES = {"original_max_position_embeddings": "original_context"}


class _Config:
    """A stranger's JSON, read key by key with its type; ValueError names the key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def size(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _LARGEST:
            raise ValueError(f"{key}: must be a whole number of at least {least}, got {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        return _positive(key, self.values.get(key, default))

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{key}: must be true or false, got {value!r}")
        return value

    def require(self, key: str, default: object, *allowed: object) -> None:
        """Refuse a value that the models here do not compute."""
        value = self.values.get(key, default)
        if value not in allowed:
            raise ValueError(f"{key}: {value!r} is not computed here, only {' or '.join(map(repr, allowed))}")


def _positive(key: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{key}: must be a positive number, got {value!r}")
    return float(value)


def model_keys(values: Mapping[str, Any]) -> tuple[str, Keys]:
    """Return the model's target and its keys.

    Raises:
        ValueError: the type of model is not one of those that are read, or a key has a value that is not computed here.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise ValueError(f"model_type: {kind!r} is not read; those that are: {', '.join(_READERS)}")
    return _READERS[kind](_Config(values))


def _llama(config: _Config) -> tuple[str, Keys]:
    kind = config.values["model_type"]
    heads, width = config.size("num_attention_heads"), config.size("hidden_size")
    config.require("hidden_act", "silu", "silu", "swish")
    config.require("mlp_bias", False, False)
    config.require("partial_rotary_factor", 1.0, 1.0, None)
    head_width = config.size("head_dim", 128 if kind == "qwen3" else max(1, width // heads))
    biases = "qkv" if kind == "qwen2" else "all" if config.flag("attention_bias", False) else "none"
    keys: Keys = {
        "layout": "llama",
        "vocab_size": config.size("vocab_size"),
        "context": config.size("max_position_embeddings", 2048),
        "layers": config.size("num_hidden_layers"),
        "heads": heads,
        "width": width,
        "hidden": config.size("intermediate_size"),
        "tie_embeddings": config.flag("tie_word_embeddings", False),
        "kv_heads": config.size("num_key_value_heads", 8 if kind == "mistral" else heads),
        "head_width": None if head_width * heads == width else head_width,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "attention_bias": None if biases == "none" else biases,
        "qk_norm": kind == "qwen3",
    }
    return GPT, keys | _rotary(config) | _window(config, kind, keys["layers"])


def _rotary(config: _Config) -> Keys:
    """Read rotary positions, which files of transformers 5 hold in one node and older ones in two keys."""
    node = config.values.get("rope_parameters") or config.values.get("rope_scaling") or {}
    if not isinstance(node, Mapping):
        raise ValueError(f"rope_scaling: must be a mapping, got {node!r}")
    theta = _positive("rope_theta", node.get("rope_theta") or config.values.get("rope_theta") or 10_000.0)
    kind = node.get("rope_type", node.get("type", "default"))
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    names = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor", *_ROPE_TYPES)}
    if kind not in names:
        raise ValueError(f"rope_scaling: type {kind!r} is not computed here, only {' or '.join(names)}")
    numbers = {_ROPE_TYPES.get(name, name): _positive(f"rope_scaling.{name}", node.get(name)) for name in names[kind]}
    return {"rope_theta": theta, "rope_scaling": {"type": kind, **numbers}}


def _window(config: _Config, kind: str, layers: int) -> Keys:
    """Read the sliding window, and the number of layers before the first that has it."""
    none: Keys = {"window": None, "full_layers": 0}
    if kind == "llama" or config.values.get("sliding_window") is None:
        return none
    if kind != "mistral" and not config.flag("use_sliding_window", False):
        return none
    window = config.size("sliding_window")
    types = config.values.get("layer_types")
    if types is None:
        full = config.size("max_window_layers", 28, least=0) if kind != "mistral" else 0
    elif isinstance(types, list) and len(types) == layers:
        full = types.index("sliding_attention") if "sliding_attention" in types else layers
        if types != ["full_attention"] * full + ["sliding_attention"] * (layers - full):
            raise ValueError("layer_types: full attention after layers with a window is not computed here")
    else:
        raise ValueError(f"layer_types: must name {layers} layers")
    return none if full >= layers else {"window": window, "full_layers": full}


def _gpt2(config: _Config) -> tuple[str, Keys]:
    config.require("activation_function", "gelu_new", "gelu_new", "gelu_pytorch_tanh")
    config.require("scale_attn_weights", True, True)
    config.require("scale_attn_by_inverse_layer_idx", False, False)
    config.require("add_cross_attention", False, False)
    return GPT, {
        "layout": "gpt2",
        "vocab_size": config.size("vocab_size"),
        "context": config.size("n_positions", 1024),
        "layers": config.size("n_layer"),
        "heads": config.size("n_head"),
        "width": config.size("n_embd"),
        "hidden": None if config.values.get("n_inner") is None else config.size("n_inner"),
        "tie_embeddings": config.flag("tie_word_embeddings", True),
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
    }


def _bert(config: _Config) -> tuple[str, Keys]:
    config.require("hidden_act", "gelu", "gelu")
    config.require("position_embedding_type", "absolute", "absolute")
    config.require("is_decoder", False, False)
    first = config.size("pad_token_id", 1, least=0) + 1 if config.values["model_type"] != "bert" else 0
    return BERT, {
        "layout": "bert",
        "vocab_size": config.size("vocab_size"),
        "context": config.size("max_position_embeddings", 512) - first,
        "layers": config.size("num_hidden_layers"),
        "heads": config.size("num_attention_heads"),
        "width": config.size("hidden_size"),
        "hidden": config.size("intermediate_size"),
        "norm_eps": config.number("layer_norm_eps", 1e-12),
        "first_position": first,
    }


_READERS: Mapping[str, Callable[[_Config], tuple[str, Keys]]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "gpt2": _gpt2,
    "bert": _bert,
    "roberta": _bert,
    "xlm-roberta": _bert,
}
