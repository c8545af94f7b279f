"""What the check of a config accepts can be built, and what can be built is accepted: for every leaf of the package.

The rules that only building can see (a momentum that Nesterov needs, the data's own shape) are those that a leaf's
docstring names under `Raises`; only there may building refuse what the check has accepted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from bigmodel import constraints as ranges
from bigmodel.config.instantiate import instantiate, validate
from bigmodel.config.signatures import locate, signature
from bigmodel.errors import ConfigError

SHAPE = (1, 8, 8)
FIXED: dict[str, Any] = {"input_shape": SHAPE, "num_classes": 3, "val_fraction": 0.1}
AUGMENT = {"_target_": "bigmodel.datasets.images.augment.ImageAugment"}
LOSS = {"_target_": "bigmodel.tasks.losses.CrossEntropy"}
NESTED: dict[str, dict[str, Any]] = {"loss": LOSS, "augment": AUGMENT}

# group, target; further keywords that the command gives
LEAVES: list[tuple[str, str]] = [
    ("optim", "bigmodel.optim.sgd.sgd"),
    ("optim", "bigmodel.optim.adam.adam"),
    ("optim", "bigmodel.optim.adam.adamw"),
    ("optim", "bigmodel.optim.muon.muon"),
    *(
        ("schedule", f"bigmodel.optim.schedules.{name}")
        for name in ("Constant", "Linear", "Cosine", "OneCycle", "MultiStep")
    ),
    ("loss", "bigmodel.tasks.losses.CrossEntropy"),
    ("loss", "bigmodel.tasks.losses.MeanSquaredError"),
    ("task", "bigmodel.tasks.classification.Classification"),
    ("dataset", "bigmodel.datasets.images.augment.ImageAugment"),
    ("dataset", "bigmodel.datasets.images.digits.digits"),
    ("device", "bigmodel.runtime.device.Device"),
    ("model", "bigmodel.models.mlp.MLP"),
    ("model", "bigmodel.models.cnn.CNN"),
    ("model", "bigmodel.models.resnet.ResNet"),
]
# what a leaf's `Raises` (or, for a device, its ConfigError) says that only building can see
DOCUMENTED = {
    "bigmodel.optim.sgd.sgd": "Nesterov",
    "bigmodel.tasks.classification.Classification": "num_classes",
    "bigmodel.datasets.images.digits.digits": "dataset",
    "bigmodel.runtime.device.Device": "device",
}

numbers = [-math.inf, -1, -1e-9, -0.0, 0, 1e-300, 1e-9, 0.5, 1 - 2**-53, 1, 1 + 2**-52, 2, 1e308, math.inf, math.nan]
wrong = st.sampled_from([*numbers, 10**400, True, None, "", "1", "fast", [], [1], [0.5, "a"], {}, {"a": 1}, "???"])


def _small(kind: Any) -> st.SearchStrategy[Any]:
    """Values that fit the kind, at and near its bounds, and small enough to be built in no time."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated and isinstance(arguments[1], ranges.Bounds):
        bounds = arguments[1]
        if arguments[0] is int:
            low = 0 if math.isinf(bounds.at_least) else int(bounds.at_least)
            return st.integers(low, low + 3)
        values = [v for v in numbers if math.isfinite(v) and bounds.holds(v) and v < 1e300]
        return st.sampled_from(values)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and Ellipsis not in arguments:
        return st.tuples(*map(_small, arguments)).map(list)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return st.lists(_small(arguments[0]), max_size=3)
    if origin in (Union, UnionType):
        return st.one_of(*map(_small, arguments))
    plain: Mapping[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(0, 3),
        float: st.sampled_from([0.0, 0.5, 1.0]),
    }
    return plain.get(kind, st.just("x"))


def _nodes(target: str) -> st.SearchStrategy[dict[str, Any]]:
    """A node for the target: mostly what fits, at times a wrong value, a key too many or one too few."""
    accepts = signature(target).parameters

    @st.composite
    def node(draw: st.DrawFn) -> dict[str, Any]:
        made: dict[str, Any] = {"_target_": target}
        for name, parameter in accepts.items():
            if name in ("model", "params"):
                continue
            if not parameter.required and draw(st.booleans()):
                continue
            if name in NESTED:
                made[name] = NESTED[name]
            elif name in FIXED and draw(st.integers(0, 3)):
                made[name] = FIXED[name]
            elif target.endswith(".digits") and name in ("mean", "std"):
                made[name] = draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=0, max_size=2))
            else:
                made[name] = draw(_small(parameter.annotation))
        change = draw(st.integers(0, 5))
        keys = [key for key in made if key != "_target_"]
        if change == 0 and keys:
            made[draw(st.sampled_from(keys))] = draw(wrong)
        elif change == 1 and keys:
            del made[draw(st.sampled_from(keys))]
        elif change == 2:
            made[draw(st.sampled_from(["nope", "model_", "_args_", "self", "lr2"]))] = draw(wrong)
        return made

    return node()


class _Root:
    """Stands for a command's settings: whatever group there is."""

    def __init__(self, **groups: Any) -> None:
        pass


@pytest.mark.parametrize(("group", "target"), LEAVES, ids=lambda item: item.rpartition(".")[2])
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_check_accepts_what_can_be_built(group: str, target: str, data: st.DataObject) -> None:
    node = data.draw(_nodes(target))
    problems = validate({group: node}, f"{__name__}._Root")
    if problems and all(": must be " in line or ": needs a value" in line for line in problems):
        return  # Python's call does not look at types and ranges: nothing to compare with
    refusal = _refusal(group, node)
    if problems:
        assert refusal, f"building accepts {node}, and the check says: {problems}"
    elif refusal:
        assert isinstance(refusal, ConfigError), f"the check accepts {node}, and building fails: {refusal!r}"
        assert target in DOCUMENTED, f"the check accepts {node}, and building says: {refusal}"
        assert DOCUMENTED[target] in str(refusal)


def _refusal(group: str, node: Mapping[str, Any]) -> Exception | None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    try:
        instantiate(group, node, **({"model": model} if group == "optim" else {}))
    except Exception as error:  # whatever it is: the check should have seen it
        return error
    return None


@pytest.mark.parametrize("target", DOCUMENTED)
def test_the_exceptions_are_documented(target: str) -> None:
    assert "Raises" in (locate(target).__doc__ or "")


@pytest.mark.parametrize(
    "name", ["weights.foreign_weights.Path", "weights.foreign_weights.load_file", "torchvision_model.suggest"][:]
)
def test_building_holds_the_true_module(name: str) -> None:
    """A name inside this package may be that of another's function, which the check by name alone cannot tell."""
    with pytest.raises(ConfigError, match="is not trusted"):
        instantiate("model", {"_target_": f"bigmodel.models.{name}"})


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("model.hidden", "bigmodel.listeners.csv_file.CsvFile"),
        ("model.hidden", "bigmodel.datasets.images.image_folder.image_folder"),
        ("dataset.augment", "bigmodel.models.mlp.MLP"),
        ("task.loss", "bigmodel.optim.sgd.sgd"),
    ],
)
def test_a_node_inside_another_is_of_its_own_kind(path: str, target: str) -> None:
    group, key = path.split(".")
    outer = {"model": "bigmodel.models.mlp.MLP", "dataset": "bigmodel.datasets.images.digits.digits"}
    node = {"_target_": outer.get(group, "bigmodel.tasks.classification.Classification"), key: {"_target_": target}}
    assert any(
        line.startswith(f"{path}._target_: '{target}' is not") for line in validate({group: node}, f"{__name__}._Root")
    )


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.nn.MultiheadAttention", "embed_dim": 8, "num_heads": 3},  # an assertion
        {"_target_": "torch.nn.Linear", "in_features": -1, "out_features": 2},  # a RuntimeError
        {"_target_": "torch.nn.Linear", "in_features": 2**62, "out_features": 2},
        {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2, "dtype": "float64"},  # a TypeError
        {"_target_": "torch.nn.init.zeros_", "tensor": 1},  # an AttributeError
        {"_target_": "torch.nn.MultiheadAttention", "embed_dim": 8, "num_heads": 0},
    ],
)
def test_what_torchs_own_modules_refuse_is_told_in_a_line(node: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        instantiate("model", node)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith("model: ")
