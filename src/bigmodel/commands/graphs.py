"""A model as a graph for other tools: which of its input's axes stay free, and why the others do not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.formatting import first_line, truncate
from bigmodel.interfaces import Axis
from bigmodel.models.scanned import replace_recurrent_layers

_USUAL = 100  # the size of an axis for which neither the kind nor the run's config has one
_BATCHES = (1, 3)
_LEAST = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # sizes that are tried for the least one


@dataclass(frozen=True)
class FreeAxis:
    """An axis of a graph that takes any size from `at_least` to `at_most`; `symbol` is its name in the program."""

    name: str
    own: int
    at_least: int
    at_most: int | None
    symbol: str


@dataclass(frozen=True)
class Graph:
    """A traced model. `free` and `fixed` are by dimension; `fixed` has name, size and reason."""

    program: torch.export.ExportedProgram
    free: Mapping[int, FreeAxis]
    fixed: Mapping[int, tuple[str, int, str]] = field(default_factory=dict)

    def description(self) -> str:
        """One line: `batch and time (1 to 64) vary; height stays 8: <reason>`."""
        spans = [f"{axis.name} ({_span(axis)})" for axis in self.free.values()]
        same = [f"{name} stays {size}: {reason}" for name, size, reason in self.fixed.values()]
        return "; ".join([f"{' and '.join(spans)} may vary", *same])


def _span(axis: FreeAxis) -> str:
    return f"{axis.at_least} or more" if axis.at_most is None else f"{axis.at_least} to {axis.at_most}"


def resize_axis(example: Tensor, dimension: int, size: int) -> Tensor:
    """The example cut along a dimension, or repeated along it up to the size."""
    own = example.shape[dimension]
    return example.index_select(dimension, torch.arange(size) % own)


def trace(
    model: nn.Module, example: Tensor, axes: Mapping[int, Axis], config: Mapping[str, Any], refused: str = ""
) -> Graph:
    """Trace a model in evaluation mode, with the batch and as many of `axes` free as it allows: none if `refused` says
    why.

    `example` (2, ...) has the data's own sizes, or any size where those vary; then the run's config may tell them.

    Raises:
        Exception: whatever the exporter raises where not even the batch can be free.
    """
    own = {dimension: axis.own or _configured(config, dimension) for dimension, axis in axes.items()}
    example = torch.zeros_like(example)
    for dimension, size in own.items():
        example = resize_axis(example, dimension, size)
    fixed: dict[int, tuple[str, int, str]] = {}
    for dimension, axis in axes.items():
        others = [size for size in _others(own[dimension], axis) if size != own[dimension]]
        tried = (_refusal([model], resize_axis(example, dimension, size)) for size in others)
        reason = refused or next(filter(None, tried), "")
        if not others or reason:
            fixed[dimension] = (axis.name, own[dimension], reason or "it has no other size")
    varying = {dimension: axis for dimension, axis in axes.items() if dimension not in fixed}
    if varying:
        try:
            program, free = _traced(replace_recurrent_layers(copy.deepcopy(model)), example, varying, own)
            return Graph(program, _verified(program, model, example, free), fixed)
        except Exception as error:  # exporters raise whatever they and the traced code raise
            reason = truncate(_constraint(error), 160)
            fixed |= {dimension: (axis.name, own[dimension], reason) for dimension, axis in varying.items()}
    return Graph(*_traced(copy.deepcopy(model), example, {}, own), dict(sorted(fixed.items())))


def _configured(config: Mapping[str, Any], dimension: int) -> int:
    """The size of an axis in the run's own data, whose sample shapes the config holds once the data was read."""
    dataset = config.get("dataset")
    shape = dataset.get("input_shape") if isinstance(dataset, Mapping) else None
    if isinstance(shape, Sequence) and dimension <= len(shape) and isinstance(shape[dimension - 1], int):
        return max(1, min(int(shape[dimension - 1]), 1 << 16))
    return _USUAL


def _others(own: int, axis: Axis) -> list[int]:
    """Sizes to try besides the data's own: a smaller and a larger one, as far as the axis goes."""
    most = axis.at_most or own + own // 2 + 1
    smaller = max(axis.at_least, min(own - 1, (axis.at_least + own) // 2))
    return sorted({smaller, min(most, own + own // 2 + 1)})


def _refusal(models: Sequence[nn.Module], inputs: Tensor) -> str:
    """Why one of the models does not compute with the inputs; empty where all do."""
    try:
        with torch.no_grad():
            for model in models:
                model(inputs)
    except Exception as error:  # the models' own affair
        return truncate(first_line(error), 160)
    return ""


def _constraint(error: Exception) -> str:
    """What the exporter names as the reason, or the first line that it says."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip().startswith("- ")]
    return lines[0] if lines else first_line(error)


def _traced(
    model: nn.Module, example: Tensor, varying: Mapping[int, Axis], own: Mapping[int, int]
) -> tuple[torch.export.ExportedProgram, dict[int, FreeAxis]]:
    dynamic = torch.export.Dim.DYNAMIC
    shapes: dict[int, Any] = {0: dynamic}
    for dimension, axis in varying.items():
        size = own[dimension]
        if axis.at_most is not None:
            shapes[dimension] = dynamic(min=max(1, axis.at_least), max=axis.at_most)
            # at its largest, a slice up to the length is the whole buffer, and the length would be fixed
            size = max(min(2, axis.at_most), (axis.at_least + axis.at_most) // 2)
        else:
            shapes[dimension] = dynamic
        example = resize_axis(example, dimension, size)
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=(shapes,))
    (name,) = program.graph_signature.user_inputs
    placed = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    free: dict[int, FreeAxis] = {}
    for dimension, axis in {0: Axis("batch", len(example)), **varying}.items():
        size = placed.meta["val"].shape[dimension]
        if isinstance(size, int):
            raise ValueError(f"{axis.name} is fixed at {size} by the model's code")
        span = program.range_constraints.get(size.node.expr)
        lower, upper = (None, None) if span is None else (_bound(span.lower), _bound(span.upper))
        at_least = max(axis.at_least, lower if lower and lower > 2 else 1)  # tracing itself takes 2 for the least
        at_most = axis.at_most if upper is None else upper
        free[dimension] = FreeAxis(axis.name, own.get(dimension, 1), at_least, at_most, str(size))
    return program, free


def _verified(
    program: torch.export.ExportedProgram, model: nn.Module, example: Tensor, free: Mapping[int, FreeAxis]
) -> Mapping[int, FreeAxis]:
    """The axes with the least sizes that both program and model take; raises what either raises at other sizes."""
    traced = program.module()
    limits = dict(free)
    for dimension, axis in free.items():
        if dimension:
            sizes = sorted({size for size in (axis.at_least, *_LEAST, axis.own) if axis.at_least <= size <= axis.own})
            works = (n for n in sizes if not _refusal([traced, model], resize_axis(example, dimension, n)))
            limits[dimension] = replace(axis, at_least=next(works, axis.own))
    for one in comparison_inputs(example, limits):
        with torch.no_grad():
            if traced(one).shape != model(one).shape:
                raise ValueError(f"the traced model's output has another shape for inputs {tuple(one.shape)}")
    return limits


def _bound(number: Any) -> int | None:
    """A bound of the exporter's as an int; None where it is infinite."""
    try:
        return int(number)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


def comparison_inputs(example: Tensor, free: Mapping[int, FreeAxis]) -> list[Tensor]:
    """Inputs at the data's own sizes, at the least and the largest, and in between; batches of one and of three."""
    sizes: list[dict[int, int]] = [{}]
    for dimension, axis in free.items():
        if dimension:
            own = axis.own
            others = {axis.at_least, (axis.at_least + own) // 2, own + own // 2 + 1, axis.at_most or 2 * own}
            inside = (n for n in sorted(others) if n >= axis.at_least and n <= (axis.at_most or n))
            sizes += [{dimension: size} for size in inside if size != own]
    inputs = []
    for changed, count in product(sizes, _BATCHES):
        one = example[:count]
        for dimension, axis in free.items():
            if dimension:
                one = resize_axis(one, dimension, changed.get(dimension, axis.own))
        inputs.append(one)
    return inputs


def largest_difference(expected: Callable[[Tensor], Tensor], found: Callable[[Tensor], Tensor], one: Tensor) -> float:
    """The largest absolute difference of two models' outputs; infinite where the second fails, or the shapes differ."""
    with torch.no_grad():
        wanted = expected(one)
        try:
            outputs = found(one)
        except Exception:  # runtimes raise whatever they like of a size that they do not take
            return float("inf")
    if outputs.shape != wanted.shape:
        return float("inf")
    return float((outputs - wanted).abs().max()) if wanted.numel() else 0.0
