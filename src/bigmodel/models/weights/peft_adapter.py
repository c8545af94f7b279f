"""Read and write LoRA matrices as the PEFT library keeps them: adapter_config.json and adapter_model.safetensors.

An adapter has the names of the published model that it belongs to, after a prefix.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigmodel.formatting import truncate
from bigmodel.models.weights.lora import LoRA
from bigmodel.safe_files import read_bytes, refuse_many_tensors, write_json

__all__ = ["Adapter", "is_adapter", "read_adapter", "write_adapter"]

_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LARGEST_CONFIG = 1 << 20
_USUAL: dict[str, tuple[object, ...]] = {  # values that change nothing, beside null and empty ones
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),  # the others begin by changing the base
}
_READ = {"fan_in_fan_out", "lora_alpha", "peft_type", "use_rslora"}
_TOLD_BY_TENSORS = {  # which layers and ranks there are
    *("exclude_modules", "layers_pattern", "layers_to_transform", "modules_to_save", "r", "rank_pattern"),
    *("target_modules", "target_parameters"),
}
_OF_TRAINING = {  # and of where it came from
    *("auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "inference_mode"),
    *("lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type"),
}


@dataclass(frozen=True)
class Adapter:
    """Low-rank matrices by the published name of their layer, and tensors that replace the model's.

    The matrices are (R, I) and (O, R); their product counts `scale` times, and is turned where the model keeps its
    weights as (I, O).
    """

    folder: Path
    alpha: float
    rank_stabilized: bool
    is_turned: bool
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    whole: Mapping[str, Tensor]

    def add_to(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors, whose published names may lack their first words, with the adapter added to them.

        Raises:
            ValueError: the tensors are of another model.
        """
        changed = dict(tensors)
        for name, new in self.whole.items():
            changed[_find_name(name, tensors, self.folder)] = new
        for layer, (a, b) in self.pairs.items():
            name = _find_name(f"{layer}.weight", tensors, self.folder)
            rank = len(a)
            shape = [a.shape[1], len(b)] if self.is_turned else [len(b), a.shape[1]]
            if [*tensors[name].shape] != shape:  # before the product, which may be much larger than its factors
                raise ValueError(f"{self.folder}: {layer} is {shape} here and {[*tensors[name].shape]} in the model")
            product = b.float() @ a.float() * (self.alpha / (math.sqrt(rank) if self.rank_stabilized else rank))
            product = product.T if self.is_turned else product
            changed[name] = (tensors[name].float() + product).to(tensors[name].dtype)
        return changed


def _find_name(name: str, tensors: Mapping[str, Tensor], folder: Path) -> str:
    """Return the name under which `tensors` have a published one: the longest of its ends."""
    words = name.split(".")
    found = next((end for n in range(len(words) - 1) if (end := ".".join(words[n:])) in tensors), None)
    if found is None:
        raise ValueError(f"{folder}: is of another model, which has {name}")
    return found


def is_adapter(path: str | Path) -> bool:
    """Return whether a path is an adapter's folder, by a name alone."""
    return (Path(path) / _CONFIG).is_file()


def read_adapter(path: str | Path) -> Adapter:
    """Read an adapter.

    Raises:
        ValueError: a file is missing or damaged, or the adapter is of a kind that is not read here.
    """
    folder = Path(path)
    try:
        config = json.loads(read_bytes(folder / _CONFIG, _LARGEST_CONFIG))
        if not isinstance(config, dict) or config.get("peft_type") != "LORA":
            raise ValueError("peft_type must be LORA")
        _refuse_other_kinds(config)
        alpha = float(config["lora_alpha"])
        if not math.isfinite(alpha):
            raise ValueError(f"lora_alpha={alpha} is not a finite number")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{folder / _CONFIG}: cannot be read: {error}") from error
    try:
        refuse_many_tensors(folder / _TENSORS)
        tensors = load_file(folder / _TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder / _TENSORS}: cannot be read as safetensors: {error}") from error
    pairs, whole = _sorted_out(tensors, folder)
    return Adapter(folder, alpha, bool(config.get("use_rslora")), bool(config.get("fan_in_fan_out")), pairs, whole)


def _refuse_other_kinds(config: Mapping[str, Any]) -> None:
    """Refuse what may give the matrices another meaning, keys that nobody knows too; all is off where it is empty."""
    for key, value in config.items():
        if key in ("use_rslora", "fan_in_fan_out") and value not in (None, True, False):
            raise ValueError(f"{key}={truncate(value)} must be true or false")
        if key in _READ | _TOLD_BY_TENSORS | _OF_TRAINING or not value or value in _USUAL.get(key, ()):
            continue
        raise ValueError(f"{key}={truncate(value)} is not read here; merge it with peft first")


def _sorted_out(
    tensors: Mapping[str, Tensor], folder: Path
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    halves: dict[str, dict[str, Tensor]] = {}
    whole = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix(_PREFIX).replace(".base_layer.", ".")
        layer, dot, rest = plain.rpartition(".lora_")
        if not dot:
            whole[plain] = tensor
        elif rest in ("A.weight", "B.weight") and tensor.ndim == 2:
            halves.setdefault(layer, {})[rest[0]] = tensor
        else:
            raise ValueError(
                f"{folder / _TENSORS}: {name} is of a kind that is not read here; merge it with peft first"
            )
    for layer, found in halves.items():
        if found.keys() != {"A", "B"} or len(found["A"]) != found["B"].shape[1]:
            raise ValueError(f"{folder / _TENSORS}: {layer} needs lora_A and lora_B of one rank")
    if not tensors:
        raise ValueError(f"{folder / _TENSORS}: holds no tensors")
    return {layer: (found["A"], found["B"]) for layer, found in halves.items()}, whole


def write_adapter(
    folder: Path, pairs: Mapping[str, tuple[Tensor, Tensor]], lora: LoRA, base: str | None, is_turned: bool
) -> None:
    """Write matrices by the published name of their layer as an adapter of a causal language model."""
    folder.mkdir()
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in pairs.items():
        tensors[f"{_PREFIX}{layer}.lora_A.weight"] = a.contiguous().clone()
        tensors[f"{_PREFIX}{layer}.lora_B.weight"] = b.contiguous().clone()
    save_file(tensors, folder / _TENSORS, {"format": "pt"})
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilized,
        "target_modules": sorted(pairs),
        "fan_in_fan_out": is_turned,
        "bias": "none",
        "inference_mode": True,
    }
    write_json(folder / _CONFIG, config)
