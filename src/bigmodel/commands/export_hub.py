"""`bigmodel-export format=hub`: write a language model as a folder that other libraries load, and load it again."""

from __future__ import annotations

from pathlib import Path

import torch

from bigmodel.commands.graphs import largest_difference
from bigmodel.commands.hub_folder import write_hub_folder
from bigmodel.config.instantiate import instantiate
from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.inference.predictor import Predictor
from bigmodel.models.gpt import GPT
from bigmodel.models.weights.foreign_weights import load_matching
from bigmodel.models.weights.open_weights import read_open_tensors, read_open_weights


def write_run_hub(predictor: Predictor, folder: Path, tolerance: float) -> str:
    """Write the model into a new folder, and return a line about it.

    Raises:
        BigmodelError: the model that was written differs from the original by more than `tolerance`.
        ConfigError: it is no language model of this package.
        ValueError: no published architecture is this model.
    """
    model = predictor.model
    if not isinstance(model, GPT):
        raise ConfigError(f"format: hub is for gpt, not {type(model).__name__}; choose another format")
    spec = predictor.processor_spec
    notes = write_hub_folder(folder, model, dict(predictor.config["model"]), spec["tokenizer"], spec.get("chat"))
    difference = _difference(predictor, folder)
    if not difference <= tolerance:
        raise BigmodelError(
            f"export: outputs differ from the original's by {difference:.3g}, more than tolerance={tolerance:g}; "
            "nothing was written"
        )
    said = "; ".join(["", *notes])
    return f"on random input it differs by at most {difference:.2g} from the original{said}"


def _difference(predictor: Predictor, folder: Path) -> float:
    found = read_open_weights(folder)
    with torch.random.fork_rng(devices=[]):
        model: GPT = instantiate("model", {"_target_": found.target, **found.keys}).eval()
    load_matching(model, read_open_tensors(folder)[0], str(folder))
    tokens_NT = predictor.processor.random_inputs(2, torch.Generator().manual_seed(0))[:, : found.keys["context"]]
    with torch.inference_mode():
        return largest_difference(predictor.model, model, tokens_NT)
