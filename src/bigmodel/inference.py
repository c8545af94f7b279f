"""A trained run, opened for inference. The checkpoint alone is enough: weights, model, classes and preprocessing.

A checkpoint may come from a stranger, so its config is held to the built-in targets before anything is
imported, but for packages that the command line trusts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel import checkpoint
from bigmodel.checkpoint import Checkpoint
from bigmodel.datasets.files import open_image
from bigmodel.datasets.images import normalised
from bigmodel.device import Device
from bigmodel.errors import ConfigError, StorageError
from bigmodel.targets import build, check

Ranking = list[tuple[str, float]]  # classes with their probabilities, the likeliest first
_LARGEST_INPUT = 1 << 26  # values in one image


@dataclass(frozen=True)
class _ModelNode:
    model: Mapping[str, Any]


@dataclass(frozen=True)
class _EvaluationNodes:
    model: Mapping[str, Any]
    task: Mapping[str, Any]
    dataset: Mapping[str, Any]


class Predictor:
    """A checkpoint's model in evaluation mode, on its device, with what prepares its input and names its output.

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
            self.classes = [str(name) for name in state["classes"]]
            self.input_shape = tuple(int(size) for size in state["input_shape"])
            self.mean, self.std = [float(v) for v in state["mean"]], [float(v) for v in state["std"]]
            weights = found.tensors.get("ema") or found.tensors["model"]
            self._hold()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StorageError(f"{found.path}: its state.json is not of this version: {error!r}") from error
        try:
            with _no_larger_than(weights):
                self.model = fresh_model(self.config, trust)
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise StorageError(f"{found.path}: the weights do not fit the model of its own config: {reason}") from error
        self.model.to(device.torch_device).eval().requires_grad_(False)

    def _hold(self) -> None:
        """ValueError unless the facts about images and classes fit together."""
        channels, height, width = self.input_shape
        if min(self.input_shape) < 1 or channels * height * width > _LARGEST_INPUT:
            raise ValueError(f"input_shape {list(self.input_shape)}")
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise ValueError(f"mean and std for {channels} channels")
        if not self.classes or not isinstance(self.config.get("model"), Mapping):
            raise ValueError("no classes or no model")

    @property
    def run_directory(self) -> Path:
        """The directory of the run that the checkpoint is part of."""
        return self.path.resolve().parents[1]

    def about(self) -> dict[str, Any]:
        """What a user of the weights must know, for JSON: classes, preprocessing, and the model's node."""
        return {
            "classes": self.classes,
            "input_shape": list(self.input_shape),
            "mean": self.mean,
            "std": self.std,
            "model": _without_pretrained(self.config["model"]),
            "step": self.step,
        }

    def opened(self, path: str | Path) -> Tensor:
        """One image as uint8 (C, H, W), in the shape the model takes. Raises DataError if it cannot be read."""
        return open_image(path, self.input_shape)

    def prepared(self, paths: Sequence[str | Path]) -> Tensor:
        """The images as one normalised batch (N, C, H, W) on the device. Raises DataError for a bad image."""
        return self._normalised(torch.stack([self.opened(path) for path in paths]))

    def rank(self, pixels_NCHW: Tensor) -> list[Ranking]:
        """For each uint8 image all classes with their probabilities, the likeliest first."""
        return self._ranked(self._normalised(pixels_NCHW))

    def predict(self, paths: Sequence[str | Path]) -> list[tuple[str, Ranking]]:
        """Each path with all classes and their probabilities, the likeliest first. Raises DataError for a bad image."""
        if not paths:
            return []
        return list(zip(map(str, paths), self._ranked(self.prepared(paths)), strict=True))

    def _normalised(self, pixels_NCHW: Tensor) -> Tensor:
        there = self.device.torch_device
        mean, std = (torch.tensor(values, device=there).view(-1, 1, 1) for values in (self.mean, self.std))
        return normalised(pixels_NCHW.to(there), mean, std)

    def _ranked(self, inputs_NCHW: Tensor) -> list[Ranking]:
        with torch.inference_mode(), self.device.autocast():
            outputs_NK = self.model(inputs_NCHW)
        sorted_NK = outputs_NK.float().softmax(1).sort(dim=1, descending=True, stable=True)
        return [
            [(self.classes[index], value) for index, value in zip(indices, values, strict=True)]
            for indices, values in zip(sorted_NK.indices.tolist(), sorted_NK.values.tolist(), strict=True)
        ]


def load(run: str, device: Device | None = None, trust: Sequence[str] = ()) -> Predictor:
    """Open a run directory (its best checkpoint, else the newest that verifies) or one checkpoint directory.

    Raises:
        ConfigError: there is no run there, or its config names a target that is not trusted.
        StorageError: the checkpoint is damaged, or none verifies.
    """
    found, warnings = _found(Path(run), run)
    return Predictor(found, device or Device("cpu"), warnings, trust)


def fresh_model(config: Mapping[str, Any], trust: Sequence[str] = ()) -> nn.Module:
    """The model of a checkpoint's config, with new weights; the caller's random numbers are left alone.

    Raises:
        ConfigError: the node names a target that is not built in, or does not fit it.
    """
    node = _without_pretrained(config["model"])
    _hold({"model": node}, _ModelNode, trust)
    with torch.random.fork_rng(devices=[]):
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


def _without_pretrained(node: Mapping[str, Any]) -> dict[str, Any]:
    """The weights come from the checkpoint; what the run once started from may be gone, and is not to be fetched."""
    return dict(node) | {key: None for key in ("pretrained", "weights", "weights_backbone") if key in node}


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


def _found(path: Path, given: str) -> tuple[Checkpoint, list[str]]:
    if path.name.startswith("step-") and path.is_dir():
        return checkpoint.load(path), []
    root = path / "checkpoints"
    if not root.is_dir():
        raise ConfigError(f"run: there is no run at '{given}'; runs lie under outputs/, each with a folder checkpoints")
    warnings = []
    try:
        best = json.loads((root / "best.json").read_text(encoding="utf-8"))
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
