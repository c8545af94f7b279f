"""`bigmodel-export`: a trained model for other tools. Every file is loaded again and compared before it is kept."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bigmodel.config import Config
from bigmodel.durable import own_folder, sync_directory, sync_file, write_json
from bigmodel.errors import BigmodelError, ConfigError, StorageError
from bigmodel.inference import Predictor, fresh_model, load
from bigmodel.settings import Export
from bigmodel.signals import Stop

Function = Callable[[Tensor], Tensor]
_ENDINGS = {"onnx": "onnx", "torch_export": "pt2", "safetensors": "safetensors"}
_ONNX_BYTES = 2**31  # a protobuf holds no more


def run(config: Config, stop: Stop | None = None) -> None:
    """Export, compare, and say where the file is; beside it lies a JSON that says how to use it.

    Raises:
        ConfigError: no such run, or the model or the machine lacks what the format needs.
        StorageError: no checkpoint verifies, or the output cannot be written.
        BigmodelError: the exported model differs by more than the tolerance; nothing is left behind.
    """
    settings = Export(**config.tree)
    if settings.opset is not None and settings.format != "onnx":
        raise ConfigError(f"opset: belongs to format=onnx, not to {settings.format}")
    if settings.format == "onnx":
        _need_onnx()
    predictor = load(settings.run, trust=config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    output = _output(settings, predictor)
    try:
        with _scratch(output, own=settings.output is None) as scratch:
            difference = _difference(predictor, _written(predictor, settings, scratch))
            if not difference <= settings.tolerance:  # a NaN is no agreement either
                raise BigmodelError(
                    f"the exported model differs by {difference:.3g} from the original, more than "
                    f"tolerance={settings.tolerance:g}; nothing was kept"
                )
            about = output.with_name(f"{output.name}.json")
            write_json(about, predictor.card())
            scratch.chmod(about.stat().st_mode)  # safetensors writes for its owner alone
            sync_file(scratch)
            os.replace(scratch, output)
            sync_directory(output.parent)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error.strerror or error}; set output=...") from error
    print(
        f"{output} ({output.stat().st_size / 1e6:.1f} MB, and {output.name}.json): "
        f"on random input it differs by at most {difference:.2g} from the original"
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


def _written(predictor: Predictor, settings: Export, path: Path) -> Function:
    """Write the model to `path` and load it from there."""
    if settings.format == "safetensors":
        return _safetensors(predictor, path)
    example = torch.zeros_like(predictor.kind.example(2, torch.Generator().manual_seed(0)))
    model = copy.deepcopy(predictor.model)  # tracing may leave marks
    try:
        with _quiet():
            if settings.format == "onnx":
                return _onnx(model, example, settings.opset, path)
            return _torch_export(model, example, path)
    except (OSError, BigmodelError):
        raise
    except Exception as error:  # the exporters raise whatever the traced code and they themselves raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"format: this model cannot be written as {settings.format}: {line}") from error


def _onnx(model: nn.Module, example: Tensor, opset: int | None, path: Path) -> Function:
    import onnxruntime

    if sum(t.numel() * t.element_size() for t in model.state_dict().values()) >= _ONNX_BYTES:
        raise ConfigError("format: the model is over 2 GB, more than one ONNX file holds; use format=torch_export")
    torch.onnx.export(
        model,
        (example,),
        path,
        dynamo=True,
        opset_version=opset,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        external_data=False,
        verbose=False,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(["logits"], {"input": inputs.numpy()})[0])


def _torch_export(model: nn.Module, example: Tensor, path: Path) -> Function:
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, path)
    reloaded: Function = torch.export.load(path).module()
    return reloaded


def _safetensors(predictor: Predictor, path: Path) -> Function:
    tensors: Mapping[str, Tensor] = predictor.model.state_dict()
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    model = fresh_model(predictor.config, predictor.trust)
    model.load_state_dict(load_file(path))
    return model.eval()


def _difference(predictor: Predictor, exported: Function) -> float:
    """The largest absolute difference of the outputs, on random batches of one and of three."""
    generator = torch.Generator().manual_seed(0)
    differences = []
    for count in (1, 3):
        inputs = predictor.kind.example(count, generator)
        with torch.no_grad(), _quiet():
            expected, outputs = predictor.model(inputs), exported(inputs)
        if outputs.shape != expected.shape:
            return float("inf")
        differences.append((outputs - expected).abs().max())
    return float(torch.stack(differences).max())  # NaN if any is


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
