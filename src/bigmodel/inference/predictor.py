"""A trained run, opened for inference. The checkpoint alone is enough: weights, model, and what it needs of the data.

A checkpoint may come from a stranger, so its config is held to the built-in targets before anything is
imported, but for packages that the command line trusts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Never

import torch
from torch import Tensor, nn

from bigmodel.config.instantiate import instantiate, validate, without_pretrained
from bigmodel.config.old_methods import RenamedMethodError
from bigmodel.config.renamed import with_current_targets
from bigmodel.errors import ConfigError, StorageError
from bigmodel.formatting import first_line
from bigmodel.inference.inputs import load_inputs
from bigmodel.inference.prediction import Prediction, SampleOptions, describe_predictor, validate_options
from bigmodel.interfaces import Processor
from bigmodel.models.weights.lora import merge_lora
from bigmodel.runs.best_checkpoint import load_best_checkpoint
from bigmodel.runs.checkpoint import Checkpoint
from bigmodel.runtime.device import Device
from bigmodel.runtime.offline import offline
from bigmodel.training.error_translation import translate_oom

# of a checkpoint's state what the run needs; the rest is the data's
_OF_THE_RUN = frozenset({"step", "steps", "best", "tally", "config", "metrics"})


@dataclass(frozen=True)
class _ModelNode:
    model: Mapping[str, Any]


@dataclass(frozen=True)
class _KindNode:
    kind: Mapping[str, Any]


@dataclass(frozen=True)
class _EvaluationNodes:
    model: Mapping[str, Any]
    task: Mapping[str, Any]
    dataset: Mapping[str, Any]


class Predictor:
    """A checkpoint's model in evaluation mode, on its device, with the `Processor` that prepares its input and says
    what its outputs mean. `processor_spec` is what the checkpoint carries of the data, for the kind.

    Raises:
        ConfigError: the checkpoint's config names a target that is not trusted.
        StorageError: the checkpoint lacks what inference needs.
    """

    def __init__(
        self, found: Checkpoint, device: Device, warnings: Sequence[str] = (), trust: Sequence[str] = ()
    ) -> None:
        self.path, self.device, self.warnings, self.trust = found.path, device, tuple(warnings), tuple(trust)
        try:
            state = found.state
            self.step = int(state["step"])
            self.config: Mapping[str, Any] = with_current_targets(dict(state["config"]))
            if not isinstance(self.config.get("model"), Mapping):
                raise ValueError("no model")
            weights = found.weights
            self.processor_spec = _processor_spec(state)
            self.best: Mapping[str, Any] = state["best"] if isinstance(state.get("best"), Mapping) else {}
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StorageError(f"{found.path}: its state.json is not of this version: {error!r}") from error
        self.processor = self._build_processor()
        try:
            weights = merge_lora(weights)
            with _limit_model_size(weights):
                self.model = build_model(self.config, trust)
            self.model.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            raise StorageError(f"{found.path}: the weights do not fit the model of its own config: {reason}") from error
        self.model.to(device.torch_device).eval().requires_grad_(False)

    def _build_processor(self) -> Processor:
        node = {"_target_": self.processor_spec["kind"]} | {
            key: value for key, value in self.processor_spec.items() if key != "kind"
        }
        problems = validate({"kind": node}, f"{__name__}._KindNode", self.trust)
        if any("_target_" in line for line in problems):
            raise ConfigError(*(f"the checkpoint's state: {line}" for line in problems))
        try:
            if problems:
                raise ConfigError(*problems)
            with offline():
                kind: Processor = instantiate("kind", node, self.trust)
        except RenamedMethodError:
            raise
        except ConfigError as error:
            raise StorageError(f"{self.path}: its state.json is not of this version: {error.lines[0]}") from error
        return kind

    @property
    def run_directory(self) -> Path:
        """The directory of the run that the checkpoint is part of."""
        return self.path.resolve().parents[1]

    @property
    def classes(self) -> list[str] | None:
        """Their names in the order of the outputs; None where the data has no classes."""
        return list(self.processor_spec["classes"]) if "classes" in self.processor_spec else None

    def export_metadata(self) -> dict[str, Any]:
        """What a user of the weights must know, for JSON: input, outputs and the model's node."""
        return {**self.processor_spec, "model": without_pretrained(self.config["model"]), "step": self.step}

    def predict(
        self,
        inputs: object,
        *,
        top: int | None = None,
        beam: int = 8,
        sample: SampleOptions | None = None,
        output: str | os.PathLike[str] = "generated",
        batch_size: int = 64,
        **unknown: Never,
    ) -> list[Prediction]:
        """Predict for one input or many; docs/python.md shows what may be an input.

        An input that cannot be read gets an answer with `error` alone, and the others are still answered. The options
        are those of predict.yaml; `top=None` names all classes.

        Raises:
            ConfigError: there is no such option, or an option has a wrong value.
            OutOfMemoryError: a batch does not fit.
        """
        asked = {"top": top, "beam": beam, "sample": sample, "output": output, "batch_size": batch_size}
        options = validate_options(asked | unknown)
        predictions: list[Prediction] = []
        coming = load_inputs(self.processor, inputs)
        while batch := list(islice(coming, batch_size)):
            good = [found for _, found in batch if isinstance(found, Tensor)]
            with translate_oom(f"at batch_size={batch_size}; lower it"):
                answers = iter(self.predict_batch(good, **options) if good else [])
            for name, found in batch:
                answer = next(answers) if isinstance(found, Tensor) else {"error": "; ".join(found.lines)}
                predictions.append(Prediction(name, answer))
        return predictions

    def __repr__(self) -> str:
        """One line: model, task, classes, parameters, run, step, metric, device and warnings."""
        return describe_predictor(
            model=self.model,
            config=self.config,
            classes=self.classes,
            run=self.path,
            step=self.step,
            best=self.best,
            device=str(self.device.torch_device),
            warnings=self.warnings,
        )

    def predict_batch(self, samples: Sequence[Tensor], **asked: Any) -> list[dict[str, Any]]:
        """What the model says of samples that the kind has read, computed as one batch."""
        try:
            inputs = self.processor.collate(samples, self.device.torch_device)
            with torch.inference_mode(), self.device.autocast():
                return self.processor.predict(self.model, inputs, **asked)
        except (LookupError, ValueError, TypeError, OverflowError) as error:
            if self.trust:  # code of one's own, whose mistakes are its own
                raise
            said = f"{type(error).__name__}: {first_line(error)}"
            raise StorageError(
                f"{self.path}: what its state.json says of the data does not go with its model: {said}"
            ) from error


def _processor_spec(state: Mapping[str, Any]) -> dict[str, Any]:
    """Of a checkpoint's state what its dataset said of itself. The first checkpoints, all of images, name no kind."""
    about = {key: value for key, value in state.items() if key not in _OF_THE_RUN}
    return {"kind": "bigmodel.inference.processors.images.ImageClassificationProcessor"} | dict(
        with_current_targets(about)
    )


def open_run(run: str | os.PathLike[str], device: str, trust: Sequence[str] = ()) -> Predictor:
    """Do the same for Python: `device` is a name of torch's, as `cpu`, `cuda:1` or `mps`, or `auto`.

    Torch's global switches are left alone.

    Raises:
        ConfigError: there is no such device here; else as `load`.
        StorageError: as `load`.
    """
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not index.isdecimal()):
        raise ConfigError(f"device: there is no '{device}'; choices: auto, cpu, cuda, cuda:0 (or another number), mps")
    trust = (trust,) if isinstance(trust, str) else trust  # one name is no list of letters
    number = int(index) if colon and kind == "cuda" else None
    return load(os.fspath(run), Device(kind, number), trust)  # type: ignore[arg-type]  # checked above


def load(run: str, device: Device | None = None, trust: Sequence[str] = ()) -> Predictor:
    """Open a run directory (its best checkpoint, else the newest that verifies) or one checkpoint directory.

    Raises:
        ConfigError: there is no run there, or its config names a target that is not trusted.
        StorageError: the checkpoint is damaged, or none verifies.
    """
    found, warnings = load_best_checkpoint(Path(run), run)
    return Predictor(found, device or Device("cpu"), warnings, trust)


def build_model(config: Mapping[str, Any], trust: Sequence[str] = ()) -> nn.Module:
    """The model of a checkpoint's config, with new weights; the caller's random numbers are left alone.

    Raises:
        ConfigError: the node names a target that is not built in, or does not fit it.
    """
    _check_targets({"model": config["model"]}, _ModelNode, trust)
    node = without_pretrained(config["model"])
    with torch.random.fork_rng(devices=[]), offline():
        model = instantiate("model", node, trust)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model._target_: '{node['_target_']}' does not make a torch module")
    return model


def check_eval_targets(config: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
    """Hold the nodes that evaluation builds from a checkpoint's config to the built-in targets.

    Raises:
        ConfigError: a line for each that is not built in, or does not fit its target.
    """
    _check_targets(
        {name: config[name] for name in ("model", "task", "dataset") if name in config}, _EvaluationNodes, trust
    )


def _check_targets(tree: Mapping[str, Any], root: type, trust: Sequence[str]) -> None:
    problems = validate(tree, f"{__name__}.{root.__name__}", trust)
    if problems:
        raise ConfigError(*(f"the checkpoint's config: {line}" for line in problems))


@contextlib.contextmanager
def _limit_model_size(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While a model is built: stop where it becomes much larger than the weights that it is for, before the memory is
    touched. A checkpoint's config may ask for any size.
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
