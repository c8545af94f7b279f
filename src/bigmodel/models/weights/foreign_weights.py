"""Load pretrained weights from a local file into a model that may have other classes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bigmodel.formatting import format_count
from bigmodel.interfaces import AdaptsStateDict
from bigmodel.models.weights.adapted_weights import adapt_tensor, prefix_to_strip
from bigmodel.models.weights.lora import merge_lora
from bigmodel.models.weights.name_patterns import match_names
from bigmodel.safe_files import refuse_many_tensors

__all__ = ["Report", "load_matching", "load_weights", "read_weights"]

_PICKLES = (".pth", ".pt", ".th")
_TIMEOUT_S = 600  # for reading one file in the child process


@dataclass(frozen=True)
class Report:
    """Report on a file's tensors: loaded, missing in the file (`new`), unused, and adapted (`changed`)."""

    num_loaded: int
    num_wanted: int
    new: Sequence[str]
    unused: Sequence[str]
    changed: Sequence[str]

    def __str__(self) -> str:
        lists = {"newly initialized": self.new, "unused in the file": self.unused}
        others = (f"; {len(names)} {label}: {_some([*names])}" for label, names in lists.items() if names)
        changed = f"; {'; '.join(self.changed)}" if self.changed else ""
        return f"loaded {self.num_loaded} of {format_count(self.num_wanted, 'tensor')}{''.join(others)}{changed}"


def load_weights(model: nn.Module, file: str) -> str:
    """Load a file's tensors into the model, for the key `pretrained`, and return a description.

    A wrapper's prefix `module.` is removed. The model's attribute `untrained` names the tensors that the file lacks.
    """
    try:
        tensors = {name.removeprefix("module."): tensor for name, tensor in read_weights(file).items()}
        report = load_matching(model, tensors, file)
    except ValueError as error:
        raise ValueError(f"pretrained: {error}") from error
    model.untrained = list(report.new)  # type: ignore[assignment]
    return str(report)


def read_weights(file: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file, by name. A pickle is read in a child process with limits.

    Raises:
        ValueError: the file does not exist or cannot be read as weights.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no file '{file}'")
    if path.suffix == ".safetensors":
        try:
            refuse_many_tensors(path)
            tensors: dict[str, Tensor] = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be read as safetensors: {error}") from error
    elif path.suffix in _PICKLES:
        tensors = _read_pickle(path)
    else:
        raise ValueError(f"{file}: must end in .safetensors or {', '.join(_PICKLES)}")
    return tensors


def load_matching(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    file: str,
    skip: str | Sequence[str] | None = None,
    settings: str = "",
) -> Report:
    """Load the tensors that the model has by name; report loaded, missing and unused ones.

    - LoRA matrices are merged, and `AdaptsStateDict` models map other names to their own.
    - `skip`: patterns of tensors to leave out.
    - The first convolution may have other channels, and learned positions another size: see `adapt_tensor`.
    - A classifier with other classes stays newly initialized; any other shape mismatch is an error.
    - `settings`: the path of `init`'s keys for messages, or empty.

    Raises:
        ValueError: no tensor has a name of this model, or shapes differ. The model is then unchanged.
    """
    try:
        tensors = merge_lora(tensors)
        if isinstance(model, AdaptsStateDict):
            tensors = model.adapt_state_dict(tensors)
        skipped = set(match_names(skip, tensors, "tensor of the file"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    own = model.state_dict()
    matching = {name: tensor for name, tensor in tensors.items() if name in own and name not in skipped}
    adapted = {name: adapt_tensor(name, matching[name], own[name], model) for name in _misfits(matching, own)}
    remarks = {name: f"{name}: {result[1]}" for name, result in adapted.items() if result is not None}
    matching |= {name: result[0] for name, result in adapted.items() if result is not None}
    mismatched = _misfits(matching, own)
    wrong = [name for name in mismatched if not _is_classifier(name, model, own, tensors)]
    if wrong:
        shapes = "; ".join(f"{n}: {_shape(tensors[n])} in the file, {_shape(own[n])} in the model" for n in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        hint = f"; {settings}skip=[{','.join(_modules(wrong))}] leaves these new" if settings else ""
        raise ValueError(f"{file}: is of another model or input: {shapes}{more}{hint}")
    fitting = {name: matching[name] for name in own if name in matching and name not in mismatched}
    prefix = prefix_to_strip(tensors, own)
    strip = f"{settings}strip_prefix={prefix}" if settings and prefix else ""
    if not fitting:
        hint = f"; try {strip}" if strip else ""
        raise ValueError(f"{file}: none of its tensors is in this model; it has {_some(list(tensors))}{hint}")
    model.load_state_dict(fitting, strict=False)
    wanted = [
        name for name in own if name in fitting or not name.endswith("num_batches_tracked")
    ]  # files of old torch versions lack it
    new = [name for name in wanted if name not in fitting]
    unused = [name for name in tensors if name not in own]
    if mismatched:
        classes = format_count(len(tensors[mismatched[-1]]), "class", "classes")
        remarks[mismatched[0]] = f"the file's classifier is of {classes}"
    if strip:
        remarks["strip"] = f"more of its names match with {strip}"
    return Report(len(fitting), len(wanted), new, unused, [*remarks.values()])


def _misfits(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    return [name for name in own if name in tensors and own[name].shape != tensors[name].shape]


def _modules(names: Sequence[str]) -> list[str]:
    """Return patterns for the modules that hold these tensors, at most five."""
    return list(dict.fromkeys(f"{name.rpartition('.')[0]}.*" if "." in name else name for name in names))[:5]


def _is_classifier(name: str, model: nn.Module, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor differs from the model's only as the last layer does: in the number of classes."""
    last = [parameter for parameter, _ in model.named_parameters()][-1]
    if last not in tensors:
        return False
    classes = own[last].shape[:1], tensors[last].shape[:1]
    same_rest = own[name].shape[1:] == tensors[name].shape[1:]
    return same_rest and (own[name].shape[:1], tensors[name].shape[:1]) == classes


def _read_pickle(path: Path) -> dict[str, Tensor]:
    package = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
    with tempfile.TemporaryDirectory() as scratch:
        destination = Path(scratch) / "weights.safetensors"
        # -P: no module in the current directory may replace torch
        command = [
            sys.executable,
            "-P",
            "-m",
            "bigmodel.models.weights.unpickle",
            str(path.resolve()),
            str(destination),
        ]
        try:
            child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path}: took more than {_TIMEOUT_S} s to read") from error
        if child.returncode or not destination.is_file():
            reason = (child.stderr.strip().splitlines() or [f"exit {child.returncode}"])[-1]
            raise ValueError(f"{path}: holds more than plain tensors, or is damaged: {reason}")
        return {name: tensor.clone() for name, tensor in load_file(destination).items()}  # the file is deleted next


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "none"
