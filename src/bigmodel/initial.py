"""The group `init`: first weights from elsewhere, and which parameters stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from bigmodel.errors import ConfigError
from bigmodel.inference import best_checkpoint
from bigmodel.models.foreign_weights import fit, read_weights
from bigmodel.models.lora import LoRA
from bigmodel.patterns import chosen
from bigmodel.words import printable


def initial(
    model: nn.Module,
    fresh: bool,
    from_: str | None = None,
    strip: str | None = None,
    freeze: str | Sequence[str] | None = None,
    lora: LoRA | None = None,
) -> list[str]:
    """Bring weights into the model, add `lora`, and take the parameters that `freeze` matches out of training; lines
    that say so.

    `from_` (in YAML `from`) is a weights file of anybody, or a run or checkpoint of this program. From the file's names
    the prefix `strip` is taken away. A classifier of other classes stays new; nothing else may differ in shape. A run
    that is not `fresh` has its weights from a checkpoint. Norms go on to keep running statistics, frozen or not.

    Raises:
        ConfigError: there is no such file, it is not of this model, or a pattern matches nothing or leaves nothing.
        StorageError: no checkpoint of the run verifies.
    """
    lines = _loaded(model, from_, strip or "") if fresh and from_ is not None else []
    if lora is not None and lora.rank:
        lines.append(_adapted(model, lora, began=not fresh))
    elif lora not in (None, LoRA()):
        raise ConfigError("init.lora.rank: with 0 no layer is adapted and all are trained; set init.lora.rank=8")
    if freeze:
        lines.append(_frozen(model, freeze, adapted=lora is not None and lora.rank > 0 and fresh))
    return lines


def _loaded(model: nn.Module, source: str, strip: str) -> list[str]:
    warnings: list[str] = []
    try:
        if Path(source).is_dir():
            found, warnings = best_checkpoint(Path(source), source)
            tensors: Mapping[str, Tensor] = found.weights
        else:
            tensors = read_weights(source)
        report = fit(model, {name.removeprefix(strip): tensor for name, tensor in tensors.items()}, source)
    except ValueError as error:
        raise ConfigError(f"init.from: {error}") from error
    except ConfigError as error:
        raise ConfigError(*(f"init.from: {line.removeprefix('run: ')}" for line in error.lines)) from error
    return [printable(line) for line in (*warnings, f"init.from={source}: {report}")]


def _adapted(model: nn.Module, lora: LoRA, began: bool) -> str:
    try:
        return f"init.lora: {lora.adapt(model, began)}"
    except ValueError as error:
        raise ConfigError(f"init.lora.{error}") from error


def _frozen(model: nn.Module, patterns: str | Sequence[str], adapted: bool) -> str:
    named = dict(model.named_parameters())
    try:
        names = chosen(patterns, named, "parameter")
    except ValueError as error:
        raise ConfigError(f"init.freeze: {error}") from error
    both = [name for name in names if named[name].requires_grad] if adapted else []
    if both:  # all else is frozen by then
        raise ConfigError(
            f"init.freeze: matches {both[0]}, which init.lora trains; narrow init.freeze or init.lora.train, or leave "
            "init.freeze out: with init.lora nothing else is trained"
        )
    for name in names:
        named[name].requires_grad_(False)
    trained = [name for name, parameter in named.items() if parameter.requires_grad]
    if not trained:
        raise ConfigError("init.freeze: leaves no parameter to train")
    return f"init.freeze: {len(named) - len(trained)} of {len(named)} parameters stay as they are"
