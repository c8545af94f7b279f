"""Write a traced model to an ONNX file, with named axes, and with its metadata inside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bigmodel.commands.graphs import FreeAxis, Graph
from bigmodel.errors import ConfigError

FIRST_OPSET = 18  # torch writes this opset and translates it to later ones; to earlier ones it often fails


def check_opset(opset: int | None) -> None:
    """Raise ConfigError unless the installed packages can write this opset; None is torch's choice."""
    import onnx

    last = int(onnx.defs.onnx_opset_version())
    if opset is not None and not FIRST_OPSET <= opset <= last:
        raise ConfigError(
            f"opset: must be from {FIRST_OPSET} to {last} (torch {torch.__version__}, onnx {onnx.__version__}), "
            f"got {opset}; leave it null for torch's choice"
        )


def write_onnx(graph: Graph, opset: int | None, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph with input `input`, output `logits` and named free axes.

    The file's metadata holds `bigmodel`, all of `metadata` as JSON, and `classes` if the model has any.

    Raises:
        ConfigError: the file did not get the requested opset.
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
    properties = {"bigmodel": json.dumps(metadata)}
    if "classes" in metadata:
        properties["classes"] = json.dumps(metadata["classes"])
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def _name_axes(graph: Any, free: Mapping[int, FreeAxis]) -> None:
    names = {axis.symbol: axis.name for axis in free.values()}
    pattern = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in names))
    for value in _iter_values(graph):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = pattern.sub(lambda match: names[match[0]], dimension.dim_param)


def _iter_values(graph: Any) -> Iterator[Any]:
    """Yield every typed value of a graph and of its nodes' subgraphs."""
    yield from (*graph.input, *graph.output, *graph.value_info)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _iter_values(attribute.g)
