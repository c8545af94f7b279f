"""Weights that somebody else trained, from a local file, into a model that may have other classes."""

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

from bigmodel.interfaces import AdaptsStateDict
from bigmodel.models.weights.adapted_weights import adapt_tensor, prefix_to_strip
from bigmodel.models.weights.lora import merge_lora
from bigmodel.models.weights.name_patterns import match_names
from bigmodel.safe_files import refuse_many_tensors

__all__ = ["Report", "load_matching", "load_weights", "read_weights"]

_PICKLES = (".pth", ".pt", ".th")
_SECONDS = 600  # to read one file in the child process


@dataclass(frozen=True)
class Report:
    """What became of a file's tensors: how many were loaded, which of the model's own stay new, and what to say."""

    loaded: int
    sought: int
    new: Sequence[str]
    unused: Sequence[str]
    changed: Sequence[str]

    def __str__(self) -> str:
        counts = {"missing and so new": self.new, "unexpected and not used": self.unused}
        others = (f"; {len(names)} {words}: {_some([*names])}" for words, names in counts.items() if names)
        changed = f"; {'; '.join(self.changed)}" if self.changed else ""
        return f"{self.loaded} of {self.sought} tensors loaded{''.join(others)}{changed}"


def load_weights(model: nn.Module, file: str) -> str:
    """`fit` what `read_weights` finds in a file, for the key `pretrained`; what a wrapper has called `module.` too.

    The model's attribute `untrained` then names what the file lacks.
    """
    try:
        tensors = {name.removeprefix("module."): tensor for name, tensor in read_weights(file).items()}
        report = load_matching(model, tensors, file)
    except ValueError as error:
        raise ValueError(f"pretrained: {error}") from error
    model.untrained = list(report.new)  # type: ignore[assignment]
    return str(report)


def read_weights(file: str) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, by name. A pickle is read in a process of its own, within limits.

    Raises:
        ValueError: there is no such file, or it cannot be read as weights.
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
        tensors = _unpickled(path)
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
    """Copy the tensors that are the model's; the rest of it stays as it is.

    Adapted layers (`lora`) are summed; a model may know other names for tensors (`AdaptsStateDict`). Those that `skip`
    matches are left out. The first convolution may be of other channels, learned positions of another size (`adapted`).
    The final classifier may be of another number of classes and then stays new; nothing else may differ in shape.
    `settings` is where the settings of `init` are, for messages; empty where there are none.

    Raises:
        ValueError: no tensor is of this model, or shapes differ; the model is as it was. `file` names them.
    """
    try:
        tensors = merge_lora(tensors)
        if isinstance(model, AdaptsStateDict):
            tensors = model.adapt_state_dict(tensors)
        left_out = set(match_names(skip, tensors, "tensor of the file"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    own = model.state_dict()
    there = {name: tensor for name, tensor in tensors.items() if name in own and name not in left_out}
    changed = {name: adapt_tensor(name, there[name], own[name], model) for name in _misfits(there, own)}
    words = {name: f"{name}: {made[1]}" for name, made in changed.items() if made is not None}
    there |= {name: made[0] for name, made in changed.items() if made is not None}
    other = _misfits(there, own)
    wrong = [name for name in other if not _is_classifier(name, model, own, tensors)]
    if wrong:
        shapes = "; ".join(f"{n}: {_shape(tensors[n])} in the file, {_shape(own[n])} in the model" for n in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        way = f"; {settings}skip=[{','.join(_modules(wrong))}] leaves these new" if settings else ""
        raise ValueError(f"{file}: is of another model or input: {shapes}{more}{way}")
    fitting = {name: there[name] for name in own if name in there and name not in other}
    prefix = prefix_to_strip(tensors, own)
    way = f"{settings}strip={prefix}" if settings and prefix else ""
    if not fitting:
        does = f"; {way} may be what it needs" if way else ""
        raise ValueError(f"{file}: none of its tensors is in this model; it has {_some(list(tensors))}{does}")
    model.load_state_dict(fitting, strict=False)
    sought = [name for name in own if name in fitting or not name.endswith("num_batches_tracked")]  # old files lack it
    new, unused = [name for name in sought if name not in fitting], [name for name in tensors if name not in own]
    if other:
        words[other[0]] = f"the file's classifier is of {len(tensors[other[-1]])} classes"
    if way:
        words["strip"] = f"more of its names are the model's with {way}"
    return Report(len(fitting), len(sought), new, unused, [*words.values()])


def _misfits(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    return [name for name in own if name in tensors and own[name].shape != tensors[name].shape]


def _modules(names: Sequence[str]) -> list[str]:
    """Patterns for the modules that hold these tensors, the first few."""
    return list(dict.fromkeys(f"{name.rpartition('.')[0]}.*" if "." in name else name for name in names))[:5]


def _is_classifier(name: str, model: nn.Module, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Whether it differs only as the last layer does: in its first dimension, from the old classes to the new."""
    last = [parameter for parameter, _ in model.named_parameters()][-1]
    if last not in tensors:
        return False
    classes = own[last].shape[:1], tensors[last].shape[:1]
    same_rest = own[name].shape[1:] == tensors[name].shape[1:]
    return same_rest and (own[name].shape[:1], tensors[name].shape[:1]) == classes


def _unpickled(path: Path) -> dict[str, Tensor]:
    package = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "weights.safetensors"
        # -P: a module in the current directory must not stand in for torch
        command = [sys.executable, "-P", "-m", "bigmodel.models.weights.unpickle", str(path.resolve()), str(target)]
        try:
            child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path}: took more than {_SECONDS} s to read") from error
        if child.returncode or not target.is_file():
            reason = (child.stderr.strip().splitlines() or [f"exit {child.returncode}"])[-1]
            raise ValueError(f"{path}: holds more than plain tensors, or is damaged: {reason}")
        return {name: tensor.clone() for name, tensor in load_file(target).items()}  # the file is gone after this


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "none"
