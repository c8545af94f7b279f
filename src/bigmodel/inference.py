"""A trained run, opened for inference. The checkpoint alone is enough: weights, model, and what it needs of the data.

A checkpoint may come from a stranger, so its config is held to the built-in targets before anything is
imported, but for packages that the command line trusts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Never

import torch
from torch import Tensor, nn

from bigmodel import checkpoint
from bigmodel.checkpoint import Checkpoint
from bigmodel.device import Device
from bigmodel.durable import is_there, kind_of, read_text
from bigmodel.errors import ConfigError, StorageError
from bigmodel.failures import out_of_memory_in_words
from bigmodel.interfaces import Kind
from bigmodel.models.lora import merged
from bigmodel.offline import offline
from bigmodel.predicting.inputs import samples
from bigmodel.predicting.prediction import Prediction, SampleOptions, checked_options, described
from bigmodel.targets import build, check, without_weights
from bigmodel.words import first_line

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
    """A checkpoint's model in evaluation mode, on its device, with the `Kind` that prepares its input and says what its
    outputs mean. `about` is what the checkpoint carries of the data, for the kind.

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
            self.config: Mapping[str, Any] = dict(state["config"])
            if not isinstance(self.config.get("model"), Mapping):
                raise ValueError("no model")
            weights = found.weights
            self.about = _about(state)
            self.best: Mapping[str, Any] = state["best"] if isinstance(state.get("best"), Mapping) else {}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StorageError(f"{found.path}: its state.json is not of this version: {error!r}") from error
        self.kind = self._kind()
        try:
            weights = merged(weights)
            with _no_larger_than(weights):
                self.model = fresh_model(self.config, trust)
            self.model.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            raise StorageError(f"{found.path}: the weights do not fit the model of its own config: {reason}") from error
        self.model.to(device.torch_device).eval().requires_grad_(False)

    def _kind(self) -> Kind:
        node = {"_target_": self.about["kind"]} | {key: value for key, value in self.about.items() if key != "kind"}
        problems = check({"kind": node}, f"{__name__}._KindNode", self.trust)
        if any("_target_" in line for line in problems):
            raise ConfigError(*(f"the checkpoint's state: {line}" for line in problems))
        try:
            if problems:
                raise ConfigError(*problems)
            with offline():
                kind: Kind = build("kind", node, self.trust)
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
        return list(self.about["classes"]) if "classes" in self.about else None

    def card(self) -> dict[str, Any]:
        """What a user of the weights must know, for JSON: input, outputs and the model's node."""
        return {**self.about, "model": without_weights(self.config["model"]), "step": self.step}

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
        options = checked_options(asked | unknown)
        predictions: list[Prediction] = []
        coming = samples(self.kind, inputs)
        while batch := list(islice(coming, batch_size)):
            good = [found for _, found in batch if isinstance(found, Tensor)]
            with out_of_memory_in_words(f"at batch_size={batch_size}; lower it"):
                answers = iter(self.answers(good, **options) if good else [])
            for name, found in batch:
                answer = next(answers) if isinstance(found, Tensor) else {"error": "; ".join(found.lines)}
                predictions.append(Prediction(name, answer))
        return predictions

    def __repr__(self) -> str:
        """One line: model, task, classes, parameters, run, step, metric, device and warnings."""
        return described(
            model=self.model,
            config=self.config,
            classes=self.classes,
            run=self.path,
            step=self.step,
            best=self.best,
            device=str(self.device.torch_device),
            warnings=self.warnings,
        )

    def answers(self, samples: Sequence[Tensor], **asked: Any) -> list[dict[str, Any]]:
        """What the model says of samples that the kind has read, computed as one batch."""
        try:
            inputs = self.kind.prepared(samples, self.device.torch_device)
            with torch.inference_mode(), self.device.autocast():
                return self.kind.answers(self.model, inputs, **asked)
        except (LookupError, ValueError, TypeError, OverflowError) as error:
            if self.trust:  # code of one's own, whose mistakes are its own
                raise
            said = f"{type(error).__name__}: {first_line(error)}"
            raise StorageError(
                f"{self.path}: what its state.json says of the data does not go with its model: {said}"
            ) from error


def _about(state: Mapping[str, Any]) -> dict[str, Any]:
    """Of a checkpoint's state what its dataset said of itself. The first checkpoints, all of images, name no kind."""
    return {"kind": "bigmodel.predicting.images.Images"} | {k: v for k, v in state.items() if k not in _OF_THE_RUN}


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
    found, warnings = best_checkpoint(Path(run), run)
    return Predictor(found, device or Device("cpu"), warnings, trust)


def fresh_model(config: Mapping[str, Any], trust: Sequence[str] = ()) -> nn.Module:
    """The model of a checkpoint's config, with new weights; the caller's random numbers are left alone.

    Raises:
        ConfigError: the node names a target that is not built in, or does not fit it.
    """
    _hold({"model": config["model"]}, _ModelNode, trust)
    node = without_weights(config["model"])
    with torch.random.fork_rng(devices=[]), offline():
        model = build("model", node, trust)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model._target_: '{node['_target_']}' does not make a torch module")
    return model


def hold_evaluation(config: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
    """Hold the nodes that evaluation builds from a checkpoint's config to the built-in targets.

    Raises:
        ConfigError: a line for each that is not built in, or does not fit its target.
    """
    _hold({name: config[name] for name in ("model", "task", "dataset") if name in config}, _EvaluationNodes, trust)


def _hold(tree: Mapping[str, Any], root: type, trust: Sequence[str]) -> None:
    problems = check(tree, f"{__name__}.{root.__name__}", trust)
    if problems:
        raise ConfigError(*(f"the checkpoint's config: {line}" for line in problems))


@contextlib.contextmanager
def _no_larger_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
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


def best_checkpoint(path: Path, given: str) -> tuple[Checkpoint, list[str]]:
    """That of a run directory, else the newest that verifies, with what is to be said of it; or the one given itself.

    Raises:
        ConfigError: there is no run.
        StorageError: the checkpoint is damaged, or none verifies.
    """
    if path.name.startswith("step-") and path.is_dir():
        return checkpoint.load(path), []
    root = path / "checkpoints"
    try:
        if not is_there(root):
            raise ConfigError(
                f"run: there is no run at '{given}'; runs lie under outputs/, each with a folder checkpoints"
            )
        if not root.is_dir():
            raise StorageError(f"{root}: is {kind_of(root.stat().st_mode)}, not a folder of checkpoints")
    except OSError as error:
        raise StorageError(f"{root}: {error.strerror or error}") from error
    checkpoint.steps(root)  # StorageError where the folder may not be read
    warnings = []
    try:
        best = json.loads(read_text(root / "best.json"))
        found = checkpoint.load(root / f"step-{int(best['step']):08d}")
        if {key: found.state["best"][key] for key in ("step", "value")} == best:
            return found, []
        warnings.append(f"{root / 'best.json'}: does not agree with {found.path}; using the newest checkpoint")
    except FileNotFoundError:
        pass  # a run without validation data, or one stopped before its first evaluation
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        warnings.append(f"{root / 'best.json'}: cannot be read ({error}); using the newest checkpoint")
    except StorageError as error:
        warnings.append(f"{error}; this was the best checkpoint, using the newest that verifies")
    newest, passed_over = checkpoint.newest(root)
    if newest is None:
        raise StorageError(f"{given}: has no checkpoint that can be used", *passed_over)
    return newest, warnings + passed_over
