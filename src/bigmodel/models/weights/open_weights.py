"""Read open weights as they are published: a folder with config.json and safetensors, or a GGUF file.

Nothing in a folder is run, and nothing is fetched. Imports torch only to read tensors.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.models.weights import gguf_file, gguf_names
from bigmodel.models.weights.hub_config import Keys, model_keys
from bigmodel.safe_files import open_regular, read_bytes, refuse_many_tensors

if TYPE_CHECKING:
    from torch import Tensor

_CONFIG, _INDEX, _ONE = "config.json", "model.safetensors.index.json", "model.safetensors"
_LARGEST_CONFIG = 1 << 22
_PREFIXES = ("transformer.", "model.", "bert.", "roberta.")  # of models with a head


@dataclass(frozen=True)
class OpenWeights:
    """Weights to load: the model that they are of, and its keys."""

    path: Path
    target: str
    keys: Keys


def is_open_weights(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a published folder or a GGUF file, by its names alone."""
    here = Path(path)
    return here.suffix == ".gguf" or ((here / _CONFIG).is_file() and not (here / "checkpoints").exists())


def read_open_weights(path: str | os.PathLike[str]) -> OpenWeights:
    """Read which model these are the weights of.

    Raises:
        ValueError: the files are missing or damaged, or are of a model that is not read here.
    """
    here = Path(path)
    if here.suffix == ".gguf":
        header = gguf_file.read_header(here)
        sizes = {name: math.prod(one.shape) for name, one in header.tensors.items()}
        where = str(here)
    else:
        sizes = {name: size for file in _shards(here) for name, size in _tensor_sizes(file).items()}
        where = str(here / _CONFIG)
    try:
        config = gguf_names.hub_config(header) if here.suffix == ".gguf" else _read_json(here / _CONFIG)
        target, keys = model_keys(config)
        _refuse_large(keys, sizes)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return OpenWeights(here, target, keys)


def read_open_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], str]:
    """Read all tensors, under the names of published files without a prefix; and a remark on their numbers, or "".

    Raises:
        ValueError: a file is missing, damaged, or needs the `gguf` package.
    """
    here = Path(path)
    if here.suffix == ".gguf":
        header = gguf_file.read_header(here)
        stored, kinds = gguf_file.read_tensors(header)
        return gguf_names.to_hub_names(stored, header), f"dequantized from {', '.join(kinds)}"
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in _shards(here):
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: cannot be read as safetensors: {error}") from error
    prefix = next((one for one in _PREFIXES if sum(name.startswith(one) for name in tensors) > len(tensors) / 2), "")
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} - {"float32", "int64"})
    return (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items()},
        f"stored as {', '.join(dtypes)}" if dtypes else "",
    )


def _shards(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: one, or those that its index names. Names with a folder are refused."""
    if (folder / _ONE).is_file() or not (folder / _INDEX).is_file():
        found = [folder / _ONE]
    else:
        index = _read_json(folder / _INDEX).get("weight_map")
        names = sorted({*index.values()}) if isinstance(index, dict) and all(map(_is_name, index.values())) else []
        if not names or len(names) > 1000:
            raise ValueError(f"{folder / _INDEX}: its weight_map must name safetensors files of the folder")
        found = [folder / name for name in names]
    for file in found:
        try:
            refuse_many_tensors(file)
        except FileNotFoundError as error:
            raise ValueError(f"{folder}: there is no {file.name}; get the whole folder") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be read as safetensors: {error}") from error
    return found


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.endswith(".safetensors") and "/" not in value and "\\" not in value


def _tensor_sizes(file: Path) -> dict[str, int]:
    """Return the number of values of each tensor, from the header."""
    try:
        with open_regular(file) as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return {name: math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as safetensors: its header is damaged") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(file, _LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: holds no mapping")
    return found


def _refuse_large(keys: Keys, sizes: Mapping[str, int]) -> None:
    """Hold the model's sizes against the tensors that are there, before a model of them is built."""
    total, width = sum(sizes.values()), keys["width"]
    head_width = keys.get("head_width") or width // keys["heads"]
    parts = {
        "layers": keys["layers"] * width,
        "vocab_size": keys["vocab_size"] * width,
        "heads": keys["layers"] * keys["heads"] * head_width * width,
        "hidden": keys["layers"] * (keys.get("hidden") or width) * width,
    }
    for name, count in parts.items():
        if count > total:
            raise ValueError(f"{name}: a model of this size has more weights than there are ({total:,})")
    if keys["context"] > 1 << 22:
        raise ValueError(f"context: {keys['context']} tokens are too many")
