"""`bigmodel-export`: a trained model for other tools. Every file is loaded again and compared before it is kept."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bigmodel.commands.graphs import Graph, comparison_inputs, largest_difference, trace
from bigmodel.commands.onnx_file import check_opset, write_onnx
from bigmodel.config.config import Config
from bigmodel.config.schema import Export
from bigmodel.errors import BigmodelError, ConfigError, StorageError
from bigmodel.inference.predictor import Predictor, build_model, load
from bigmodel.interfaces import HasAxes, HasPortableSteps
from bigmodel.runtime.signals import StopRequest
from bigmodel.safe_files import fsync_directory, fsync_path, own_folder, write_json

Function = Callable[[Tensor], Tensor]
_ENDINGS = {"onnx": "onnx", "torch_export": "pt2", "safetensors": "safetensors"}
_ONNX_BYTES = 2**31  # a protobuf holds no more


def run(config: Config, stop: StopRequest | None = None) -> None:
    """Export, compare, and say where the file is; beside it lies a JSON that says how to use it.

    Raises:
        ConfigError: no such run, or the model or the machine lacks what the format needs.
        StorageError: no checkpoint verifies, or the output cannot be written.
        BigmodelError: the exported model differs by more than the tolerance; nothing is left behind.
    """
    settings = Export(**config.values)
    if settings.opset is not None and settings.format != "onnx":
        raise ConfigError(f"opset: belongs to format=onnx, not to {settings.format}")
    if settings.format == "onnx":
        _need_onnx()
        check_opset(settings.opset)
    predictor = load(settings.run, trust=config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    output, card = _output(settings, predictor), _card(predictor)
    try:
        with _scratch(output, own=settings.output is None) as scratch:
            exported, graph = _written(predictor, settings, card, scratch)
            difference = _difference(predictor, exported, graph)
            if graph and len(graph.free) > 1 and not difference <= settings.tolerance:
                refused = f"at other sizes the file differs by {difference:.3g} from the original"
                exported, graph = _written(predictor, settings, card, scratch, refused)
                difference = _difference(predictor, exported, graph)
            if not difference <= settings.tolerance:  # a NaN is no agreement either
                raise BigmodelError(
                    f"the exported model differs by {difference:.3g} from the original, more than "
                    f"tolerance={settings.tolerance:g}; nothing was kept"
                )
            about = output.with_name(f"{output.name}.json")
            write_json(about, card | {"difference": difference})
            scratch.chmod(about.stat().st_mode)  # safetensors writes for its owner alone
            fsync_path(scratch)
            os.replace(scratch, output)
            fsync_directory(output.parent)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error.strerror or error}; set output=...") from error
    print(
        f"{output} ({output.stat().st_size / 1e6:.1f} MB, and {output.name}.json): "
        f"on random input it differs by at most {difference:.2g} from the original"
        + (f"; {graph.description()}" if graph else "")
    )


def _output(settings: Export, predictor: Predictor) -> Path:
    ending = _ENDINGS[settings.format]
    if settings.output is None:
        return predictor.run_directory / "export" / f"model.{ending}"
    output = Path(settings.output)
    if output.suffix != f".{ending}" or output.is_dir():
        raise ConfigError(f"output: must be a file that ends in .{ending}, as other tools expect, not '{output}'")
    return output


@contextlib.contextmanager
def _scratch(output: Path, own: bool) -> Iterator[Path]:
    """A file of the same name in a temporary directory beside the output; what is left there goes, whatever happens."""
    made = not output.parent.exists()
    if own:
        own_folder(output.parent)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=".tmp-", dir=output.parent))
    try:
        yield directory / output.name
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # it holds the export
                output.parent.rmdir()


def _written(
    predictor: Predictor, settings: Export, card: dict[str, Any], path: Path, refused: str = ""
) -> tuple[Function, Graph | None]:
    """Write the model to `path` and load it from there; what is learnt of its axes goes into the card. If `refused`
    says why, no axis but the batch is free.
    """
    if settings.format == "safetensors":
        return _safetensors(predictor, path, card), None
    kind, model = predictor.processor, predictor.model
    example = kind.random_inputs(2, torch.Generator().manual_seed(0))
    axes = kind.axes() if isinstance(kind, HasAxes) else {}
    try:
        with _quiet():
            graph = trace(model, example, axes, predictor.config, refused)
            card |= _of_graph(graph)
            if settings.format == "onnx":
                return _onnx(model, graph, settings.opset, path, card), graph
            return _torch_export(graph, path, card), graph
    except (OSError, BigmodelError):
        raise
    except Exception as error:  # the exporters raise whatever the traced code and they themselves raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"format: this model cannot be written as {settings.format}: {line}") from error


def _card(predictor: Predictor) -> dict[str, Any]:
    """What the file beside an export says, but for the axes of its graph; docs/export.md defines it."""
    kind = predictor.processor
    if isinstance(kind, HasPortableSteps) and _is_up_to_date(type(kind)):
        return {"version": 1, **predictor.export_metadata(), **kind.steps()}
    reason = f"{type(kind).__qualname__} does not write down steps of its own"
    return {
        "version": 1,
        **predictor.export_metadata(),
        "preprocess": None,
        "postprocess": None,
        "steps_missing": reason,
    }


def _is_up_to_date(kind: type) -> bool:
    """Whether a class writes down its own steps, not those of a base whose reading or answers it has replaced."""
    owners = {name: next(base for base in kind.__mro__ if name in vars(base)) for name in ("steps", "load", "predict")}
    return issubclass(owners["steps"], owners["load"]) and issubclass(owners["steps"], owners["predict"])


def _of_graph(graph: Graph) -> dict[str, Any]:
    names = {dimension: axis.name for dimension, axis in graph.free.items()}
    (name,) = graph.program.graph_signature.user_inputs
    placed = next(node for node in graph.program.graph.nodes if node.name == name).meta["val"]
    shape = [names.get(dimension, size) for dimension, size in enumerate(placed.shape)]
    return {
        "input": {"name": "input", "dtype": str(placed.dtype).removeprefix("torch."), "shape": shape},
        "output": {"name": "logits"},
        "axes": {axis.name: {"min": axis.at_least, "max": axis.at_most} for axis in graph.free.values()},
        "fixed_axes": {n: {"size": size, "reason": reason} for n, size, reason in graph.fixed.values()},
    }


def _onnx(model: nn.Module, graph: Graph, opset: int | None, path: Path, card: Mapping[str, Any]) -> Function:
    import onnxruntime

    if sum(t.numel() * t.element_size() for t in model.state_dict().values()) >= _ONNX_BYTES:
        raise ConfigError("format: the model is over 2 GB, more than one ONNX file holds; use format=torch_export")
    write_onnx(graph, opset, path, card)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(["logits"], {"input": inputs.numpy()})[0])


def _torch_export(graph: Graph, path: Path, card: Mapping[str, Any]) -> Function:
    torch.export.save(graph.program, path, extra_files={"bigmodel.json": json.dumps(card)})
    reloaded: Function = torch.export.load(path).module()
    return reloaded


def _safetensors(predictor: Predictor, path: Path, card: Mapping[str, Any]) -> Function:
    tensors: Mapping[str, Tensor] = predictor.model.state_dict()
    save_file(
        {k: v.clone().contiguous() for k, v in tensors.items()},
        path,
        metadata={"format": "pt", "bigmodel": json.dumps(card)},
    )
    model = build_model(predictor.config, predictor.trust)
    model.load_state_dict(load_file(path))
    return model.eval()


def _difference(predictor: Predictor, exported: Function, graph: Graph | None) -> float:
    """The largest absolute difference of the outputs on random inputs of the sizes that `comparison_inputs` lists."""
    example = predictor.processor.random_inputs(3, torch.Generator().manual_seed(0))
    free = {} if graph is None else graph.free
    with _quiet():
        found = [largest_difference(predictor.model, exported, one) for one in comparison_inputs(example, free)]
    return max(found) if all(map(math.isfinite, found)) else float("nan")


def _need_onnx() -> None:
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"format: onnx needs {', '.join(missing)}; pip install 'bigmodel-train[export]'")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say to their developers off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
