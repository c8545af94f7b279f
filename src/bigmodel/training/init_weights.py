"""Apply the config group `init`: initial weights from a file or another run, LoRA, and frozen parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from bigmodel.errors import ConfigError
from bigmodel.formatting import escape_control, format_count
from bigmodel.models.frozen_norms import keep_in_eval
from bigmodel.models.weights.foreign_weights import Report, load_matching, read_weights
from bigmodel.models.weights.lora import LoRA
from bigmodel.models.weights.merging import Merge
from bigmodel.models.weights.name_patterns import match_names
from bigmodel.models.weights.open_weights import is_open_weights, read_open_tensors
from bigmodel.models.weights.peft_adapter import is_adapter, read_adapter
from bigmodel.models.weights.reference import plain_weights
from bigmodel.runs.best_checkpoint import load_best_checkpoint


def init_weights(
    model: nn.Module,
    fresh: bool,
    from_: str | Sequence[str] | None = None,
    strip_prefix: str | None = None,
    freeze: str | Sequence[str] | None = None,
    lora: LoRA | None = None,
    epochs: float = 1.0,
    skip: str | Sequence[str] | None = None,
    incomplete: Literal["refuse", "test"] = "refuse",
    frozen_norms: Literal["eval", "train"] = "train",
    merge: Merge | None = None,
    adapter: str | None = None,
) -> list[str]:
    """Load weights into the model, add `lora`, and freeze the parameters that `freeze` matches; return a line for each.

    - `from_` (in YAML `from`) is a weights file, a run, a checkpoint or open weights (see `open_weights`); or several,
        which `merge` makes one of.
    - `adapter` is a folder in PEFT's format whose matrices are added to those weights.
    - The prefix `strip_prefix` is removed from the file's names; tensors that `skip` matches stay newly initialized.
    - A classifier with other classes stays newly initialized; channels and positions are adapted as in `load_matching`;
        no other shape may differ.
    - Without `fresh` the weights come from a checkpoint, so none are loaded here.
    - With `epochs=0` no training makes up for tensors that the file lacks: refused, unless `incomplete` is "test".
    - Norms whose parameters are all frozen keep their running statistics ("eval"), or take them from the batches
        ("train", as older runs did).

    Raises:
        ConfigError: the file does not exist or is not of this model, or a pattern matches nothing or leaves nothing.
        StorageError: no checkpoint of the run verifies.
    """
    lines: list[str] = []
    if adapter is not None and from_ is None:
        raise ConfigError("init.adapter: needs the weights that it is added to; set init.from=...")
    if fresh and from_ is not None:
        sources = [from_] if isinstance(from_, str) else from_
        report, lines = _load(model, sources, strip_prefix or "", skip, merge, adapter)
        if not epochs and report.new and incomplete == "refuse":
            raise ConfigError(
                f"epochs: 0 would test {format_count(len(report.new), 'tensor')} that are untrained, "
                f"{', '.join(report.new[:4])}{' ...' if len(report.new) > 4 else ''}; "
                "train them, or set init.incomplete=test"
            )
    if lora is not None and lora.rank:
        lines.append(_apply_lora(model, lora, began=not fresh))
    elif lora not in (None, LoRA()):
        raise ConfigError("init.lora.rank: with 0 no layer is adapted and all are trained; set init.lora.rank=8")
    if freeze:
        lines.append(_freeze(model, freeze, adapted=lora is not None and lora.rank > 0 and fresh))
    if frozen_norms == "eval" and (kept := keep_in_eval(model)):
        norms = format_count(len(kept), "norm")
        lines.append(f"init.frozen_norms=eval: running statistics stay in {norms}, as {kept[0]}")
    return lines


def _load(
    model: nn.Module,
    sources: Sequence[str],
    prefix: str,
    skip: str | Sequence[str] | None,
    merge: Merge | None,
    adapter: str | None,
) -> tuple[Report, list[str]]:
    shown, warnings = ", ".join(sources), list[str]()
    try:
        read = {source: _read(source, warnings) for source in sources}
        if merge is None and len(read) == 1:
            (tensors,) = read.values()
        else:
            merge = merge or Merge()
            base = None if merge.base is None else _read(merge.base, warnings)
            tensors, shown = merge.merge(read, base), f"[{shown}], {merge.how}"
        if adapter is not None:
            tensors, line = _with_adapter(tensors, adapter)
            warnings.append(line)
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        report = load_matching(model, named, shown, skip, "init.")
        _refuse_nonfinite(model, f"{shown} with init.adapter={adapter}" if adapter else shown)
    except ValueError as error:
        raise ConfigError(f"init.from: {error}") from error
    except ConfigError as error:
        lines = (line.removeprefix("run: ") for line in error.lines)
        raise ConfigError(*(line if line.startswith("init.") else f"init.from: {line}" for line in lines)) from error
    return report, [escape_control(line) for line in (*warnings, f"init.from={shown}: {report}")]


def _refuse_nonfinite(model: nn.Module, shown: str) -> None:
    wrong = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if wrong:
        more = f" and {format_count(len(wrong) - 1, 'other parameter')}" if wrong[1:] else ""
        raise ValueError(f"{shown}: {wrong[0]}{more} would hold values that are not finite; get the file anew")


def _read(source: str, warnings: list[str]) -> Mapping[str, Tensor]:
    """Return the tensors of a file, a run or a checkpoint, with LoRA's matrices added to their layers."""
    if is_open_weights(source):
        tensors, remark = read_open_tensors(source)
        warnings += [f"init.from={source}: {remark}"] if remark else []
        return tensors
    if is_adapter(source):
        raise ConfigError(
            f"{source}: is an adapter; name it in init.adapter, and the weights it belongs to in init.from"
        )
    if not Path(source).is_dir() and Path(source).suffix != ".zip":
        return plain_weights(read_weights(source))
    found, new = load_best_checkpoint(Path(source), source)
    warnings += new
    return plain_weights(found.weights)


def _with_adapter(tensors: Mapping[str, Tensor], folder: str) -> tuple[Mapping[str, Tensor], str]:
    try:
        found = read_adapter(folder)
        added = found.add_to(tensors)
    except ValueError as error:
        raise ConfigError(f"init.adapter: {error}") from error
    whole = f", and {format_count(len(found.whole), 'tensor')} in place of the model's" if found.whole else ""
    return added, f"init.adapter={folder}: added to {format_count(len(found.pairs), 'layer')}{whole}"


def _apply_lora(model: nn.Module, lora: LoRA, began: bool) -> str:
    try:
        return f"init.lora: {lora.adapt(model, began)}"
    except ValueError as error:
        raise ConfigError(f"init.lora.{error}") from error


def _freeze(model: nn.Module, patterns: str | Sequence[str], adapted: bool) -> str:
    named = dict(model.named_parameters())
    try:
        names = match_names(patterns, named, "parameter")
    except ValueError as error:
        raise ConfigError(f"init.freeze: {error}") from error
    both = [name for name in names if named[name].requires_grad] if adapted else []
    if both:  # all else is frozen by then
        raise ConfigError(
            f"init.freeze: matches {both[0]}, which init.lora trains; narrow init.freeze or init.lora.also_train, or "
            "leave init.freeze out: with init.lora nothing else is trained"
        )
    for name in names:
        named[name].requires_grad_(False)
    trained = [name for name, parameter in named.items() if parameter.requires_grad]
    if not trained:
        raise ConfigError("init.freeze: leaves no parameter to train")
    return f"init.freeze: {len(named) - len(trained)} of {len(named)} parameters stay as they are"
