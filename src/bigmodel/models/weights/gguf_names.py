"""Read a GGUF file as a model of the llama family: its settings, and its tensors under the names of published files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bigmodel.models.weights.gguf_file import GGUF

if TYPE_CHECKING:
    from torch import Tensor

_TOP_LEVEL_NAMES = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_PERMUTED = ("attn_q", "attn_k")  # llama.cpp rotates neighbouring channels, and stores llama's rows in that order
_ARCHITECTURES = ("llama", "qwen2", "qwen3")


def hub_config(header: GGUF) -> dict[str, Any]:
    """Return the file's settings as the `config.json` of a published folder has them.

    Raises:
        ValueError: the architecture, or its scaling of rotary positions, is not one of those that are read.
    """
    architecture = header.settings.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"architecture '{architecture}' is not read; those that are: {', '.join(_ARCHITECTURES)}")
    if "rope_freqs.weight" in header.tensors:
        raise ValueError("rope_freqs.weight: positions scaled by a table are not read; use the folder it was made of")
    config = {
        "model_type": architecture,
        "vocab_size": header.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in header.tensors else None,
        "max_position_embeddings": header.setting("context_length"),
        "num_hidden_layers": header.setting("block_count"),
        "hidden_size": header.setting("embedding_length"),
        "intermediate_size": header.setting("feed_forward_length"),
        "num_attention_heads": header.setting("attention.head_count"),
        "num_key_value_heads": header.setting("attention.head_count_kv", header.setting("attention.head_count")),
        "rms_norm_eps": _round(header.setting("attention.layer_norm_rms_epsilon")),
        "rope_theta": _round(header.setting("rope.freq_base", 10_000.0)),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }
    if (size := header.setting("attention.key_length")) is not None:
        config["head_dim"] = size
    kind = header.setting("rope.scaling.type", "none")
    if kind != "none":
        config["rope_scaling"] = {"rope_type": kind, "factor": _round(header.setting("rope.scaling.factor", 1.0))}
    return config


def _round(number: Any) -> Any:
    """Return the decimal number that was stored as float32."""
    return float(f"{number:.7g}") if isinstance(number, float) else number


def to_hub_names(tensors: Mapping[str, Tensor], header: GGUF) -> dict[str, Tensor]:
    """Rename tensors from llama.cpp's names to those of published files, and undo its order of rows."""
    heads = header.setting("attention.head_count")
    kv_heads = header.setting("attention.head_count_kv", heads)
    named = {}
    for name, tensor in tensors.items():
        layer, _, tensor_name = name.rpartition(".")
        block = re.fullmatch(r"blk\.(\d+)\.(.+)", layer)
        if block is None:
            named[f"{_TOP_LEVEL_NAMES.get(layer, layer)}.{tensor_name}"] = tensor
            continue
        if header.settings.get("general.architecture") == "llama" and block[2] in _PERMUTED:
            count = heads if block[2] == "attn_q" else kv_heads
            if len(tensor) % (2 * count):
                raise ValueError(f"{name}: {len(tensor)} rows cannot be divided among {count} heads")
            tensor = tensor.view(count, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
        named[f"layers.{block[1]}.{_BLOCK_NAMES.get(block[2], block[2])}.{tensor_name}"] = tensor
    return named
