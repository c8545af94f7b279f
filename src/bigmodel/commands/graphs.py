"""Trace a model to a graph for other tools, with as many free input axes as the model allows."""

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

_DEFAULT_SIZE = 100  # of an axis for which neither the processor nor the run's config has one
_BATCH_SIZES = (1, 3)
_MIN_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # candidates for an axis's smallest size


@dataclass(frozen=True)
class FreeAxis:
    """Axis of a graph that takes any size from `at_least` to `at_most`; `symbol` is its name in the program."""

    name: str
    own: int
    at_least: int
    at_most: int | None
    symbol: str


@dataclass(frozen=True)
class Graph:
    """Traced model. `free` and `fixed` are by dimension; `fixed` holds name, size and reason."""

    program: torch.export.ExportedProgram
    free: Mapping[int, FreeAxis]
    fixed: Mapping[int, tuple[str, int, str]] = field(default_factory=dict)

    def description(self) -> str:
        """Describe the axes in one line: `batch and time (1 to 64) may vary; height stays 8: <reason>`."""
        ranges = [f"{axis.name} ({_range(axis)})" for axis in self.free.values()]
        fixed = [f"{name} stays {size}: {reason}" for name, size, reason in self.fixed.values()]
        return "; ".join([f"{' and '.join(ranges)} may vary", *fixed])


def _range(axis: FreeAxis) -> str:
    return f"{axis.at_least} or more" if axis.at_most is None else f"{axis.at_least} to {axis.at_most}"


def resize_axis(example: Tensor, dimension: int, size: int) -> Tensor:
    """Cut an example along a dimension, or repeat it along the dimension up to `size`."""
    return example.index_select(dimension, torch.arange(size) % example.shape[dimension])


def trace(
    model: nn.Module, example: Tensor, axes: Mapping[int, Axis], config: Mapping[str, Any], refused: str = ""
) -> Graph:
    """Trace a model in evaluation mode, with the batch and as many of `axes` free as the model allows.

    - `example` (2, ...) has the sizes of the data; an axis whose size varies takes it from the run's config.
    - `refused`: why no axis but the batch may be free, or empty.

    Raises:
        Exception: anything that the exporter raises if not even the batch can be free.
    """
    own = {dimension: axis.own or _configured_size(config, dimension) for dimension, axis in axes.items()}
    example = torch.zeros_like(example)
    for dimension, size in own.items():
        example = resize_axis(example, dimension, size)
    fixed: dict[int, tuple[str, int, str]] = {}
    for dimension, axis in axes.items():
        others = [size for size in _other_sizes(own[dimension], axis) if size != own[dimension]]
        reasons = (_failure([model], resize_axis(example, dimension, size)) for size in others)
        reason = refused or next(filter(None, reasons), "")
        if not others or reason:
            fixed[dimension] = (axis.name, own[dimension], reason or "no other size is possible")
    varying = {dimension: axis for dimension, axis in axes.items() if dimension not in fixed}
    if varying:
        try:
            program, free = _trace_with(replace_recurrent_layers(copy.deepcopy(model)), example, varying, own)
            return Graph(program, _verify_sizes(program, model, example, free), fixed)
        except Exception as error:  # exporters and the traced code can raise anything
            reason = truncate(_reason_for_failure(error), 160)
            fixed |= {dimension: (axis.name, own[dimension], reason) for dimension, axis in varying.items()}
    return Graph(*_trace_with(copy.deepcopy(model), example, {}, own), dict(sorted(fixed.items())))


def _configured_size(config: Mapping[str, Any], dimension: int) -> int:
    """Return an axis's size in the run's data, from the sample shape that its config holds."""
    dataset = config.get("dataset")
    shape = dataset.get("input_shape") if isinstance(dataset, Mapping) else None
    if isinstance(shape, Sequence) and dimension <= len(shape) and isinstance(shape[dimension - 1], int):
        return max(1, min(int(shape[dimension - 1]), 1 << 16))
    return _DEFAULT_SIZE


def _other_sizes(own: int, axis: Axis) -> list[int]:
    """Return a smaller and a larger size than the data's, within the bounds of the axis."""
    most = axis.at_most or own + own // 2 + 1
    smaller = max(axis.at_least, min(own - 1, (axis.at_least + own) // 2))
    return sorted({smaller, min(most, own + own // 2 + 1)})


def _failure(models: Sequence[nn.Module], inputs: Tensor) -> str:
    """Return why one of the models fails on the inputs; empty if none does."""
    try:
        with torch.no_grad():
            for model in models:
                model(inputs)
    except Exception as error:  # models can raise anything
        return truncate(first_line(error), 160)
    return ""


def _reason_for_failure(error: Exception) -> str:
    """Return the reason that the exporter gives, or the first line of its message."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip().startswith("- ")]
    return lines[0] if lines else first_line(error)


def _trace_with(
    model: nn.Module, example: Tensor, varying: Mapping[int, Axis], own: Mapping[int, int]
) -> tuple[torch.export.ExportedProgram, dict[int, FreeAxis]]:
    dynamic = torch.export.Dim.DYNAMIC
    shapes: dict[int, Any] = {0: dynamic}
    for dimension, axis in varying.items():
        size = own[dimension]
        if axis.at_most is not None:
            shapes[dimension] = dynamic(min=max(1, axis.at_least), max=axis.at_most)
            # at the largest size, a slice of a buffer is the whole buffer, which would fix the axis
            size = max(min(2, axis.at_most), (axis.at_least + axis.at_most) // 2)
        else:
            shapes[dimension] = dynamic
        example = resize_axis(example, dimension, size)
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=(shapes,))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names files of this machine, and exporters write it down
    (name,) = program.graph_signature.user_inputs
    placeholder = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    free: dict[int, FreeAxis] = {}
    for dimension, axis in {0: Axis("batch", len(example)), **varying}.items():
        size = placeholder.meta["val"].shape[dimension]
        if isinstance(size, int):
            raise ValueError(f"{axis.name} is fixed at {size} by the model's code")
        constraint = program.range_constraints.get(size.node.expr)
        lower, upper = (None, None) if constraint is None else (_bound(constraint.lower), _bound(constraint.upper))
        at_least = max(axis.at_least, lower if lower and lower > 2 else 1)  # the tracer itself assumes 2 or more
        at_most = axis.at_most if upper is None else upper
        free[dimension] = FreeAxis(axis.name, own.get(dimension, 1), at_least, at_most, str(size))
    return program, free


def _verify_sizes(
    program: torch.export.ExportedProgram, model: nn.Module, example: Tensor, free: Mapping[int, FreeAxis]
) -> Mapping[int, FreeAxis]:
    """Return the axes with the smallest sizes that both program and model take; raise what either raises at others."""
    traced = program.module()
    limits = dict(free)
    for dimension, axis in free.items():
        if dimension:
            sizes = sorted(
                {size for size in (axis.at_least, *_MIN_SIZES, axis.own) if axis.at_least <= size <= axis.own}
            )
            working = (n for n in sizes if not _failure([traced, model], resize_axis(example, dimension, n)))
            limits[dimension] = replace(axis, at_least=next(working, axis.own))
    for one in comparison_inputs(example, limits):
        with torch.no_grad():
            if traced(one).shape != model(one).shape:
                raise ValueError(f"the traced model's output has another shape for inputs {tuple(one.shape)}")
    return limits


def _bound(number: Any) -> int | None:
    """Return a bound of the exporter as an int; None if it is infinite."""
    try:
        return int(number)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


def comparison_inputs(example: Tensor, free: Mapping[int, FreeAxis]) -> list[Tensor]:
    """Return inputs of the data's sizes, of the smallest, the largest and some in between, in batches of 1 and 3."""
    sizes: list[dict[int, int]] = [{}]
    for dimension, axis in free.items():
        if dimension:
            own = axis.own
            others = {axis.at_least, (axis.at_least + own) // 2, own + own // 2 + 1, axis.at_most or 2 * own}
            allowed = (n for n in sorted(others) if n >= axis.at_least and n <= (axis.at_most or n))
            sizes += [{dimension: size} for size in allowed if size != own]
    inputs = []
    for changed, batch_size in product(sizes, _BATCH_SIZES):
        resized = example[:batch_size]
        for dimension, axis in free.items():
            if dimension:
                resized = resize_axis(resized, dimension, changed.get(dimension, axis.own))
        inputs.append(resized)
    return inputs


def largest_difference(
    reference: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor], inputs: Tensor
) -> float:
    """Return the largest absolute difference of two models' outputs; inf if `exported` fails or the shapes differ."""
    with torch.no_grad():
        expected = reference(inputs)
        try:
            outputs = exported(inputs)
        except Exception:  # runtimes can raise anything for a size that they do not take
            return float("inf")
    if outputs.shape != expected.shape:
        return float("inf")
    return float((outputs - expected).abs().max()) if expected.numel() else 0.0
