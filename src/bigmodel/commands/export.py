"""`bigmodel-export`: write a trained model for other tools. Each file is loaded again and compared, then kept."""

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

from bigmodel.commands.export_folder import FOLDERS, export_folder
from bigmodel.commands.graphs import Graph, comparison_inputs, largest_difference, trace
from bigmodel.commands.onnx_file import check_opset, write_onnx
from bigmodel.config.config import Config
from bigmodel.config.schema import Export
from bigmodel.errors import BigmodelError, ConfigError, StorageError
from bigmodel.inference.predictor import Predictor, build_model, load
from bigmodel.interfaces import HasAxes, HasPortableSteps
from bigmodel.runtime.exhaustion import describe_exhaustion
from bigmodel.runtime.signals import StopRequest
from bigmodel.safe_files import fsync_directory, fsync_path, own_folder, write_json

Function = Callable[[Tensor], Tensor]
_ENDINGS = {"onnx": "onnx", "torch_export": "pt2", "safetensors": "safetensors"}
_MAX_ONNX_BYTES = 2**31  # of a protobuf file


def run(config: Config, stop: StopRequest | None = None, report: Callable[[str], object] = lambda text: None) -> None:
    """Export a model, compare it with the original, and print where the file is; a JSON beside it documents its use.

    Raises:
        ConfigError: the run does not exist, or the model or the machine lacks what the format needs.
        StorageError: no checkpoint verifies, or the output cannot be written.
        BigmodelError: the exported model differs by more than the tolerance; no file is left behind.
    """
    settings = Export(**config.values)
    if settings.opset is not None and settings.format != "onnx":
        raise ConfigError(f"opset: applies to format=onnx only, not to {settings.format}")
    if settings.format == "onnx":
        require_onnx()
        check_opset(settings.opset)
    report("exporting")
    predictor = load(settings.run, trust=config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    if settings.format in FOLDERS:
        print(export_folder(predictor, settings.format, settings.output, settings.tolerance))
        return
    print(export_file(predictor, settings))


def export_file(predictor: Predictor, settings: Export) -> str:
    """Write one file and its JSON, and return a line about them.

    Raises:
        ConfigError: the model or the machine lacks what the format needs.
        StorageError: the output cannot be written.
        BigmodelError: the exported model differs by more than the tolerance; no file is left behind.
    """
    output = _output_path(settings, predictor)
    metadata = _metadata(predictor)
    try:
        with _scratch(output, own=settings.output is None) as scratch:
            exported, graph = _write_and_reload(predictor, settings, metadata, scratch)
            difference = _difference(predictor, exported, graph)
            if graph and len(graph.free) > 1 and not difference <= settings.tolerance:
                refused = f"at other sizes the file differs by {difference:.3g} from the original"
                exported, graph = _write_and_reload(predictor, settings, metadata, scratch, refused)
                difference = _difference(predictor, exported, graph)
            if not difference <= settings.tolerance:  # also if it is NaN
                raise BigmodelError(
                    f"export: outputs differ from the original's by {difference:.3g}, more than "
                    f"tolerance={settings.tolerance:g}; nothing was written; raise tolerance or use another format"
                )
            description = output.with_name(f"{output.name}.json")
            write_json(description, metadata | {"difference": difference})
            scratch.chmod(description.stat().st_mode)  # safetensors makes files that only their owner can read
            fsync_path(scratch)
            os.replace(scratch, output)
            fsync_directory(output.parent)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error.strerror or error}; set output=...") from error
    return (
        f"{output} ({output.stat().st_size / 1e6:.1f} MB, and {output.name}.json): "
        f"on random input it differs by at most {difference:.2g} from the original"
        + (f"; {graph.description()}" if graph else "")
    )


def _output_path(settings: Export, predictor: Predictor) -> Path:
    ending = _ENDINGS[settings.format]
    if settings.output is None:
        return predictor.run_directory / "export" / f"model.{ending}"
    output = Path(settings.output)
    if output.suffix != f".{ending}" or output.is_dir():
        raise ConfigError(f"output: must be a file name that ends in .{ending}, got '{output}'")
    return output


@contextlib.contextmanager
def _scratch(output: Path, own: bool) -> Iterator[Path]:
    """Yield a file of the same name in a temporary directory beside the output, which is removed at the end."""
    is_new_folder = not output.parent.exists()
    if own:
        own_folder(output.parent)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=".tmp-", dir=output.parent))
    try:
        yield directory / output.name
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if is_new_folder:
            with contextlib.suppress(OSError):  # not empty: it holds the export
                output.parent.rmdir()


def _write_and_reload(
    predictor: Predictor, settings: Export, metadata: dict[str, Any], path: Path, refused: str = ""
) -> tuple[Function, Graph | None]:
    """Write the model to `path`, load it again, and add its axes to `metadata`.

    `refused` is the reason why no axis but the batch may be free, or empty.
    """
    if settings.format == "safetensors":
        return _safetensors(predictor, path, metadata), None
    processor = predictor.processor
    model = predictor.model
    example = processor.random_inputs(2, torch.Generator().manual_seed(0))
    axes = processor.axes() if isinstance(processor, HasAxes) else {}
    try:
        with _quiet():
            graph = trace(model, example, axes, predictor.config, refused)
            metadata |= _graph_metadata(graph)
            if settings.format == "onnx":
                return _onnx(model, graph, settings.opset, path, metadata), graph
            return _torch_export(graph, path, metadata), graph
    except (OSError, BigmodelError):
        raise
    except Exception as error:  # exporters and the traced code can raise anything
        if describe_exhaustion(error):
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"format: this model cannot be written as {settings.format} ({line})") from error


def _metadata(predictor: Predictor) -> dict[str, Any]:
    """Return the JSON beside an export, except the axes of its graph; docs/export.md defines it."""
    processor = predictor.processor
    if isinstance(processor, HasPortableSteps) and _has_own_steps(type(processor)):
        return {"version": 1, **predictor.export_metadata(), **processor.steps()}
    reason = f"{type(processor).__qualname__} does not describe its own steps"
    return {
        "version": 1,
        **predictor.export_metadata(),
        "preprocess": None,
        "postprocess": None,
        "steps_missing": reason,
    }


def _has_own_steps(processor: type) -> bool:
    """Return whether a class's `steps` describe its own `load` and `predict`, not those of a base that it overrides."""
    owners = {
        name: next(base for base in processor.__mro__ if name in vars(base)) for name in ("steps", "load", "predict")
    }
    return issubclass(owners["steps"], owners["load"]) and issubclass(owners["steps"], owners["predict"])


def _graph_metadata(graph: Graph) -> dict[str, Any]:
    names = {dimension: axis.name for dimension, axis in graph.free.items()}
    (name,) = graph.program.graph_signature.user_inputs
    placeholder = next(node for node in graph.program.graph.nodes if node.name == name).meta["val"]
    shape = [names.get(dimension, size) for dimension, size in enumerate(placeholder.shape)]
    return {
        "input": {"name": "input", "dtype": str(placeholder.dtype).removeprefix("torch."), "shape": shape},
        "output": {"name": "logits"},
        "axes": {axis.name: {"min": axis.at_least, "max": axis.at_most} for axis in graph.free.values()},
        "fixed_axes": {n: {"size": size, "reason": reason} for n, size, reason in graph.fixed.values()},
    }


def _onnx(model: nn.Module, graph: Graph, opset: int | None, path: Path, metadata: Mapping[str, Any]) -> Function:
    import onnxruntime

    if sum(t.numel() * t.element_size() for t in model.state_dict().values()) >= _MAX_ONNX_BYTES:
        raise ConfigError("format: the model is over 2 GB, more than one ONNX file holds; use format=torch_export")
    write_onnx(graph, opset, path, metadata)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(["logits"], {"input": inputs.numpy()})[0])


def _torch_export(graph: Graph, path: Path, metadata: Mapping[str, Any]) -> Function:
    torch.export.save(graph.program, path, extra_files={"bigmodel.json": json.dumps(metadata)})
    reloaded: Function = torch.export.load(path).module()
    return reloaded


def _safetensors(predictor: Predictor, path: Path, metadata: Mapping[str, Any]) -> Function:
    tensors: Mapping[str, Tensor] = predictor.model.state_dict()
    save_file(
        {k: v.clone().contiguous() for k, v in tensors.items()},
        path,
        metadata={"format": "pt", "bigmodel": json.dumps(metadata)},
    )
    model = build_model(predictor.config, predictor.trust)
    model.load_state_dict(load_file(path))
    return model.eval()


def _difference(predictor: Predictor, exported: Function, graph: Graph | None) -> float:
    """Return the largest absolute difference of the outputs on random inputs of all sizes of `comparison_inputs`."""
    example = predictor.processor.random_inputs(3, torch.Generator().manual_seed(0))
    free = {} if graph is None else graph.free
    with _quiet():
        inputs = comparison_inputs(example, free)
        differences = [largest_difference(predictor.model, exported, one) for one in inputs]
    return max(differences) if all(map(math.isfinite, differences)) else float("nan")


def require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"format: onnx needs {', '.join(missing)}; pip install 'bigmodel-train[export]'")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' messages, warnings and logs."""
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
