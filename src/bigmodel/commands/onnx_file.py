"""ONNX files: written from a traced model, with named axes and with what a user of the file must know inside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bigmodel.commands.graphs import FreeAxis, Graph
from bigmodel.errors import ConfigError

FIRST_OPSET = 18  # torch writes this one, and translates it to later ones; to earlier ones it often cannot


def check_opset(opset: int | None) -> None:
    """ConfigError unless the installed packages can write this opset; None is torch's own choice."""
    import onnx

    last = int(onnx.defs.onnx_opset_version())
    if opset is not None and not FIRST_OPSET <= opset <= last:
        raise ConfigError(
            f"opset: must be from {FIRST_OPSET} to {last} (torch {torch.__version__}, onnx {onnx.__version__}), "
            f"got {opset}; leave it null for torch's choice"
        )


def write_onnx(graph: Graph, opset: int | None, path: Path, card: Mapping[str, Any]) -> None:
    """Write the graph; its input is named `input`, its output `logits`, and its free axes by their names.

    The file's metadata has `bigmodel`, the whole card as JSON, and `classes` where there are any.

    Raises:
        ConfigError: the file does not have the opset that was asked for.
    """
    import onnx

    program = torch.onnx.export(
        graph.program,
        (),
        dynamo=True,
        opset_version=opset,
        input_names=["input"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)
    model = onnx.load(path)
    (written,) = (entry.version for entry in model.opset_import if entry.domain == "")
    if opset not in (None, written):
        raise ConfigError(f"opset: this model cannot be written in {opset}, only in {written}; set opset={written}")
    _name_axes(model.graph, graph.free)
    facts = {"bigmodel": json.dumps(card)}
    if "classes" in card:
        facts["classes"] = json.dumps(card["classes"])
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def _name_axes(graph: Any, free: Mapping[int, FreeAxis]) -> None:
    names = {axis.symbol: axis.name for axis in free.values()}
    pattern = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in names))
    for value in _values(graph):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = pattern.sub(lambda found: names[found[0]], dimension.dim_param)


def _values(graph: Any) -> Iterator[Any]:
    """Every typed value of a graph and of the graphs inside its nodes."""
    yield from (*graph.input, *graph.output, *graph.value_info)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _values(attribute.g)
