"""A trained run, opened for inference. The checkpoint alone is enough: it holds weights, model node and processor spec.

A checkpoint may come from a stranger, so its config is checked against the built-in targets, and those of packages
that the command line trusts, before anything is imported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bigmodel.config.instantiate import instantiate, validate, without_pretrained
from bigmodel.config.old_methods import RenamedMethodError
from bigmodel.config.renamed import with_current_names
from bigmodel.config.signatures import Parameter, dataclass_signature
from bigmodel.constraints import PositiveInt
from bigmodel.errors import ConfigError, StorageError
from bigmodel.formatting import first_line
from bigmodel.inference.inputs import load_inputs
from bigmodel.inference.options import build_options
from bigmodel.inference.prediction import Prediction, Predictions, describe_predictor, predictor_facts
from bigmodel.interfaces import NoOptions, Processor
from bigmodel.models.weights.reference import plain_weights
from bigmodel.runs.best_checkpoint import load_best_checkpoint
from bigmodel.runs.checkpoint import Checkpoint
from bigmodel.runs.display.html import facts_table
from bigmodel.runtime.device import Device
from bigmodel.runtime.exhaustion import describe_exhaustion
from bigmodel.runtime.offline import offline
from bigmodel.training.error_translation import translate_oom

_RUN_KEYS = frozenset({"step", "steps", "best", "tally", "config", "metrics"})  # of state.json; others are the data's
_FIRST_PROCESSOR = "bigmodel.inference.processors.images.ImageClassificationProcessor"
_BATCH_SIZE = {"batch_size": Parameter(PositiveInt, required=False)}


@dataclass(frozen=True)
class _ModelNode:
    model: Mapping[str, Any]


@dataclass(frozen=True)
class _ProcessorNode:
    kind: Mapping[str, Any]  # under the key of state.json, which messages name


@dataclass(frozen=True)
class _EvaluationNodes:
    model: Mapping[str, Any]
    task: Mapping[str, Any]
    dataset: Mapping[str, Any]


class Predictor:
    """A checkpoint's model in evaluation mode on its device, with the `Processor` of its inputs and outputs.

    `processor_spec` holds the processor's target under `kind`, and its arguments.

    Raises:
        ConfigError: the checkpoint's config names a target that is not trusted.
        StorageError: the checkpoint lacks what inference needs.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: Device, warnings: Sequence[str] = (), trust: Sequence[str] = ()
    ) -> None:
        self.path = checkpoint.path
        self.device = device
        self.warnings = tuple(warnings)
        self.trust = tuple(trust)
        try:
            state = checkpoint.state
            self.step = int(state["step"])
            self.config: Mapping[str, Any] = with_current_names(dict(state["config"]))
            if not isinstance(self.config.get("model"), Mapping):
                raise ValueError("no model")
            weights = checkpoint.weights
            self.processor_spec = _processor_spec(state)
            self.best: Mapping[str, Any] = state["best"] if isinstance(state.get("best"), Mapping) else {}
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StorageError(damaged_state(self.path, repr(error))) from error
        self.processor = self._build_processor()
        try:
            weights = plain_weights(weights)
            with _limit_model_size(weights):
                self.model = build_model(self.config, trust)
            self.model.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            if describe_exhaustion(error):
                raise
            raise StorageError(
                f"{self.path}: the weights do not fit the model of its config ({first_line(error)})"
            ) from error
        self.model.to(device.torch_device).eval().requires_grad_(False)

    def _build_processor(self) -> Processor:
        arguments = {key: value for key, value in self.processor_spec.items() if key != "kind"}
        node = {"_target_": self.processor_spec["kind"]} | arguments
        problems = validate({"kind": node}, f"{__name__}._ProcessorNode", self.trust)
        if any("_target_" in line for line in problems):
            raise ConfigError(*(f"the checkpoint's state: {line}" for line in problems))
        try:
            if problems:
                raise ConfigError(*problems)
            with offline():
                processor: Processor = instantiate("kind", node, self.trust)
        except RenamedMethodError:
            raise
        except ConfigError as error:
            raise StorageError(damaged_state(self.path, error.lines[0])) from error
        return processor

    @property
    def run_directory(self) -> Path:
        """Directory of the run that the checkpoint belongs to; where it lies outside of one, its own parent."""
        parent = self.path.resolve().parent
        return parent.parent if parent.name == "checkpoints" else parent

    @property
    def classes(self) -> list[str] | None:
        """Class names in the order of the outputs; None where the data has no classes."""
        return list(self.processor_spec["classes"]) if "classes" in self.processor_spec else None

    def export_metadata(self) -> dict[str, Any]:
        """Return the processor spec, the model node and the step, for the JSON beside exported weights."""
        return {**self.processor_spec, "model": without_pretrained(self.config["model"]), "step": self.step}

    @property
    def _options_class(self) -> type[Any]:
        return getattr(self.processor, "Options", NoOptions)  # which a processor without options may leave out

    def build_options(
        self, given: Mapping[str, Any], *, parse_texts: bool = False, others: Mapping[str, Parameter] | None = None
    ) -> Any:
        """Build the processor's `Options`; see `inference.options.build_options`."""
        owner = f"this run's {type(self.processor).__name__}"
        return build_options(self._options_class, given, owner, parse_texts=parse_texts, others=others or {})

    def predict(self, inputs: object, *, top: int | None = None, batch_size: int = 64, **options: Any) -> Predictions:
        """Predict for one input or many; docs/python.md lists the forms of an input.

        An input that cannot be read gets an answer with `error` alone; the others are still predicted. `options` are
        the fields of the processor's `Options`; `top=None` names all classes.

        Raises:
            ConfigError: the processor lacks an option, or an option has a wrong value.
            OutOfMemoryError: a batch does not fit.
        """
        parameters = dataclass_signature(self._options_class).parameters
        if top is not None or "top" in parameters:
            options["top"] = top
        given = {key: _to_plain(value) for key, value in (options | {"batch_size": batch_size}).items()}
        built = self.build_options(given, others=_BATCH_SIZE)
        predictions = Predictions()
        remaining = load_inputs(self.processor, inputs)
        while batch := list(islice(remaining, batch_size)):
            samples = [sample for _, sample in batch if isinstance(sample, Tensor)]
            with translate_oom(f"at batch_size={batch_size}; lower it"):
                answers = iter(self.predict_batch(samples, built) if samples else [])
            for name, sample in batch:
                answer = next(answers) if isinstance(sample, Tensor) else {"error": "; ".join(sample.lines)}
                predictions.append(Prediction(name, answer))
        return predictions

    def predict_batch(self, samples: Sequence[Tensor], options: Any) -> list[dict[str, Any]]:
        """Predict for loaded samples as one batch. `options` is an instance of the processor's `Options`."""
        try:
            inputs = self.processor.collate(samples, self.device.torch_device)
            with torch.inference_mode(), self.device.autocast():
                return self.processor.predict(self.model, inputs, options)
        except (LookupError, ValueError, TypeError, OverflowError) as error:
            if self.trust:  # the error may be in user code
                raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise StorageError(f"{self.path}: its state.json and its model contradict each other ({reason})") from error

    def __repr__(self) -> str:
        """Describe the predictor in one line: model, task, classes, parameters, run, step, metric, device, warnings."""
        return describe_predictor(self._facts())

    def _repr_html_(self) -> str:
        return facts_table("Predictor", self._facts())

    def _facts(self) -> dict[str, str]:
        device = str(self.device.torch_device)
        known: dict[str, Any] = {"model": self.model, "config": self.config, "classes": self.classes}
        return predictor_facts(
            **known, run=self.run_directory, step=self.step, best=self.best, device=device, warnings=self.warnings
        )


def open_run(run: str | os.PathLike[str], device: str, trust: Sequence[str] = ()) -> Predictor:
    """Open a run as `load` does. `device` is a torch name, as `cpu`, `cuda:1` or `mps`, or `auto`.

    Torch's global switches stay unchanged.

    Raises:
        ConfigError: this machine has no such device; see also `load`.
        StorageError: see `load`.
    """
    device_type, colon, index = device.partition(":")
    if device_type not in ("auto", "cpu", "cuda", "mps") or (colon and not index.isdecimal()):
        raise ConfigError(f"device: there is no '{device}'; choices: auto, cpu, cuda, cuda:0 (or another index), mps")
    trust = (trust,) if isinstance(trust, str) else trust  # a single name is no list of letters
    gpu = int(index) if colon and device_type == "cuda" else None
    return load(os.fspath(run), Device(device_type, gpu), trust)  # type: ignore[arg-type]  # checked above


def load(run: str, device: Device | None = None, trust: Sequence[str] = ()) -> Predictor:
    """Open a run directory (its best checkpoint, else the newest that verifies) or one checkpoint directory.

    Raises:
        ConfigError: there is no such run, or its config names a target that is not trusted.
        StorageError: the checkpoint is damaged, or none verifies.
    """
    checkpoint, warnings = load_best_checkpoint(Path(run), run)
    return Predictor(checkpoint, device or Device("cpu"), warnings, trust)


def build_model(config: Mapping[str, Any], trust: Sequence[str] = ()) -> nn.Module:
    """Build the model of a checkpoint's config with new weights; the caller's random state stays unchanged.

    Raises:
        ConfigError: the node names a target that is not trusted, or does not fit it.
    """
    _check_targets({"model": config["model"]}, _ModelNode, trust)
    node = without_pretrained(config["model"])
    with torch.random.fork_rng(devices=[]), offline():
        model = instantiate("model", node, trust)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model._target_: '{node['_target_']}' does not make a torch module")
    return model


def check_eval_targets(config: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
    """Check the nodes that evaluation builds from a checkpoint's config against the trusted targets.

    Raises:
        ConfigError: a line for each node that is not trusted or does not fit its target.
    """
    nodes = {name: config[name] for name in ("model", "task", "dataset") if name in config}
    _check_targets(nodes, _EvaluationNodes, trust)


def _check_targets(tree: Mapping[str, Any], root: type, trust: Sequence[str]) -> None:
    problems = validate(tree, f"{__name__}.{root.__name__}", trust)
    if problems:
        raise ConfigError(*(f"the checkpoint's config: {line}" for line in problems))


def _processor_spec(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the processor's entries of state.json. The first checkpoints, all of images, have no `kind`."""
    spec = {key: value for key, value in state.items() if key not in _RUN_KEYS}
    return {"kind": _FIRST_PROCESSOR} | dict(with_current_names(spec))


def damaged_state(path: Path, reason: str) -> str:
    """Return the message for a state.json that cannot be used."""
    return f"{path}: state.json is damaged or from another version; use another checkpoint of the run ({reason})"


def _to_plain(value: Any) -> Any:
    """Return a path as text, a numpy number as Python's, a mapping with plain values, and all else unchanged."""
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


@contextlib.contextmanager
def _limit_model_size(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop a model's construction once it is much larger than its weights, before the memory is touched.

    A checkpoint's config may ask for any size.
    """
    room = {"parameters": 4 * len(weights) + 1000, "values": 4 * sum(t.numel() for t in weights.values()) + 1_000_000}

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        room["parameters"] -= 1
        room["values"] -= 0 if parameter is None else parameter.numel()
        if min(room.values()) < 0:
            raise ValueError("is far larger than the weights in the checkpoint")

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
