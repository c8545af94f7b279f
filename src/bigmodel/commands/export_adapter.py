"""`bigmodel-export format=peft`: a run's LoRA matrices as an adapter of the published model, written and read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bigmodel.commands.hub_folder import hub_config, hub_weights
from bigmodel.config.instantiate import instantiate
from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.formatting import format_count
from bigmodel.inference.predictor import Predictor
from bigmodel.models.gpt import GPT
from bigmodel.models.weights.lora import LoRA, merge_lora
from bigmodel.models.weights.peft_adapter import read_adapter, write_adapter
from bigmodel.runs import checkpoint

_WHOLE = "use format=hub, which writes the whole model"


def write_run_adapter(predictor: Predictor, folder: Path, tolerance: float) -> str:
    """Write the matrices into a new folder, and return a line about it.

    Raises:
        BigmodelError: what was written differs from the run's weights by more than `tolerance`.
        ConfigError: the run has no such matrices, or has trained more than them.
        ValueError: no published architecture is the run's model.
    """
    model = predictor.model
    if not isinstance(model, GPT):
        raise ConfigError(f"format: peft is for gpt, not {type(model).__name__}; choose another format")
    init: Mapping[str, Any] = predictor.config.get("init") or {}
    weights = checkpoint.load(predictor.path).weights
    layers = [name.removesuffix(".lora_scale") for name in weights if name.endswith(".lora_scale")]
    if not layers:
        raise ConfigError(f"format: peft is for runs with init.lora.rank; {_WHOLE}")
    lora: LoRA = instantiate("init.lora", init["lora"])
    if lora.also_train:
        raise ConfigError(f"format: peft has no place for what init.lora.also_train has trained; {_WHOLE}")
    base = init.get("from")
    changed = next((key for key in ("adapter", "skip") if init.get(key)), None)
    if changed is not None or not isinstance(base, str):
        why = f"init.{changed} has changed the weights of init.from" if changed else "init.from names no one model"
        raise ConfigError(f"format: peft is added to published weights, and {why}; {_WHOLE}")
    config = hub_config(model, predictor.config["model"])
    is_turned = config["model_type"] == "gpt2"
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for layer in layers:
        for name, rows in hub_weights(model, config, {f"{layer}.weight": weights[f"{layer}.lora_b"]}).items():
            b = rows.T if is_turned else rows
            pairs[name.removesuffix(".weight")] = (weights[f"{layer}.lora_a"], b)
    write_adapter(folder, pairs, lora, base, is_turned)
    frozen = {name: tensor for name, tensor in weights.items() if ".lora_" not in name}
    merged = read_adapter(folder).add_to(hub_weights(model, config, frozen))
    expected = hub_weights(model, config, merge_lora(weights))
    difference = max(float((merged[name] - tensor).abs().max()) for name, tensor in expected.items())
    if not difference <= tolerance:
        raise BigmodelError(
            f"export: weights differ from the original's by {difference:.3g}, more than tolerance={tolerance:g}; "
            "nothing was written"
        )
    rank = max(len(a) for a, _ in pairs.values())
    return (
        f"{format_count(len(pairs), 'layer')} of rank {rank}, added to the base its weights differ by at most "
        f"{difference:.2g}"
    )
