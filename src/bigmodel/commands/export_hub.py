"""`bigmodel-export format=hub`: write a language model as a folder that other libraries load, and load it again."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from bigmodel.commands.graphs import largest_difference
from bigmodel.commands.hub_folder import write_hub_folder
from bigmodel.config.instantiate import instantiate
from bigmodel.errors import BigmodelError, ConfigError, StorageError
from bigmodel.inference.predictor import Predictor
from bigmodel.models.gpt import GPT
from bigmodel.models.weights.foreign_weights import load_matching
from bigmodel.models.weights.open_weights import read_open_tensors, read_open_weights
from bigmodel.safe_files import fsync_directory


def export_hub_folder(predictor: Predictor, given: str | None, tolerance: float) -> str:
    """Write the folder, whole or not at all, and return a line about it.

    Raises:
        BigmodelError: the model that was written differs from the original by more than `tolerance`.
        ConfigError: no published architecture is this model, or the folder exists.
        StorageError: it cannot be written.
    """
    model = predictor.model
    if not isinstance(model, GPT):
        raise ConfigError(f"format: hub is for gpt, not {type(model).__name__}; choose another format")
    output = Path(given) if given is not None else predictor.run_directory / "export" / "hub"
    if output.exists():
        raise ConfigError(f"output: '{output}' exists; name a new folder")
    node = predictor.config["model"]
    spec = predictor.processor_spec
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=output.parent))
        try:
            folder = scratch / output.name
            notes = write_hub_folder(folder, model, dict(node), spec["tokenizer"], spec.get("chat"))
            difference = _difference(predictor, folder)
            if not difference <= tolerance:
                raise BigmodelError(
                    f"export: outputs differ from the original's by {difference:.3g}, more than "
                    f"tolerance={tolerance:g}; nothing was written"
                )
            os.replace(folder, output)
            fsync_directory(output.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except ValueError as error:
        raise ConfigError(f"format: hub: {error}") from error
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error.strerror or error}; set output=...") from error
    said = "; ".join(["", *notes])
    return f"{output}: on random input it differs by at most {difference:.2g} from the original{said}"


def _difference(predictor: Predictor, folder: Path) -> float:
    found = read_open_weights(folder)
    with torch.random.fork_rng(devices=[]):
        model: GPT = instantiate("model", {"_target_": found.target, **found.keys}).eval()
    load_matching(model, read_open_tensors(folder)[0], str(folder))
    tokens_NT = predictor.processor.random_inputs(2, torch.Generator().manual_seed(0))[:, : found.keys["context"]]
    with torch.inference_mode():
        return largest_difference(predictor.model, model, tokens_NT)
