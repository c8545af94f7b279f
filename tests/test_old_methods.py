"""A user's package that was written for an earlier version: old imports and old methods are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.config.old_methods import RenamedMethodError, check_method_names
from conftest import Answer, is_quiet

IMPORTS = """import torch

from bigmodel.augment import Augment


def made(input_shape, num_classes, outputs):
    return Augment
"""
LATE = """from torch import nn


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Linear(64, 10)

    def forward(self, x):
        from bigmodel.padding import lengths, present

        return self.weight(x.flatten(1))
"""


def told(answer: Answer) -> list[str]:
    """The error lines of a command that was refused for its configuration."""
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err
    return [line.removeprefix("error: ") for line in answer.err.splitlines() if line.startswith("error: ")]


def test_an_old_import_is_one_line_with_its_place(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "old_imports_pkg").mkdir()
    (tmp_path / "old_imports_pkg" / "__init__.py").touch()
    file = tmp_path / "old_imports_pkg" / "data.py"
    file.write_text(IMPORTS)
    words = (
        "dataset=digits",
        "model=mlp",
        "dataset._target_=old_imports_pkg.data.made",
        "trust=[old_imports_pkg]",
        "device=cpu",
    )
    lines = is_quiet(cli(*words, cwd=tmp_path), code=2)
    assert lines == [f"dataset._target_: {file}, line 3: No module named 'bigmodel.augment'"]
    assert not (tmp_path / "outputs").exists()


def test_so_is_one_that_comes_late(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "late_imports_pkg.py").write_text(LATE)
    own = ("~model", "+model={_target_: late_imports_pkg.Late}", "trust=[late_imports_pkg]")
    (line,) = told(cli("dataset=digits", *own, "device=cpu", "epochs=1", "limit_batches=1", cwd=tmp_path))
    file = tmp_path / "late_imports_pkg.py"
    assert line.startswith(f"{file}, line 10: ImportError: cannot import name 'present' from 'bigmodel.padding'")


METHODS = '''
import torch
from torch import nn

from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.tasks.classification import Classification


def data(outputs=None, num_classes=None, input_shape=None, kind="old_methods_pkg.Processor", made=TensorDataset):
    x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    facts = {"num_classes": 10, "outputs": 10, "input_shape": [1, 8, 8]}
    carried = {"kind": kind, "classes": [str(n) for n in range(10)]}
    return made({"train": (x, y), "val": (x, y)}, facts, "noise", carried, "noise")


class OldData:
    def __init__(self, *given):
        self.facts, self.summary, self.fingerprint = {}, "noise", "noise"

    def about(self): ...
    def example(self, count): ...
    def open(self, how): ...


def old_data(outputs=None, num_classes=None, input_shape=None):
    return data(made=OldData)


class HalfOld(TensorDataset):
    """Its `facts` nobody asks for any more; what it calls `open` is a thing of its own."""

    @property
    def facts(self): return {}

    def open(self, file): ...


def half_old_data(outputs=None, num_classes=None, input_shape=None):
    return data(made=HalfOld)


class OldLoader:
    streamed, placement, steps_per_epoch, splits = False, "here", 1, {"train": 40}
    def train(self, first, last): ...
    def evaluation(self, split): ...


class NewDataOldLoader(TensorDataset):
    def loader(self, how): return OldLoader()


def old_loader(outputs=None, num_classes=None, input_shape=None):
    return data(made=NewDataOldLoader)


class OldTask:
    metric_names = ("loss",)

    def __init__(self, loss, num_classes): ...
    def loss(self, model, batch): ...
    def tally(self, loss, outputs, batch): ...
    def metrics(self, tally): ...
    def examination(self, loss, outputs, batch): ...
    def report(self, examination): ...


class HalfOldTask(Classification):
    """`report` is a thing of its own."""

    def metrics(self, tally): return {}
    def examination(self, loss, outputs, seen): ...
    def report(self, file): ...


class OldModel(nn.Sequential):
    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(64, 10))
    def initialise(self, inputs): ...
    def translated(self, tensors): ...


class Model(nn.Sequential):
    """Its methods are its own affair."""

    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(64, 10))
    def initialise(self, std=0.02): ...
    def metrics(self): ...
    def open(self, file): ...
    def report(self): ...


class Processor:
    def __init__(self, classes): ...
    def find(self, given): ...
    def read(self, source): ...
    def prepared(self, samples, device): ...
    def answers(self, model, inputs, **asked): ...
    def table(self, sources, answered): ...
    def example(self, count, generator): ...
'''
RUN = ("dataset=digits", "model=mlp", "model.hidden=[]")
QUICK = ("device=cpu", "limit_batches=2", "epochs=1", "listeners=[]", "trust=[old_methods_pkg]")
PKG = "old_methods_pkg"
NAMED = "return a dict of named sums (tensors)"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A directory with a package of one's own and the YAML of its dataset."""
    (tmp_path / f"{PKG}.py").write_text(METHODS)
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    keys = "".join(f"{key}: null\n" for key in ("outputs", "num_classes", "input_shape"))
    (tmp_path / "mine" / "dataset" / "own.yaml").write_text(f"# Noise.\n_target_: {PKG}.data\n{keys}")
    return tmp_path


@pytest.mark.parametrize(
    ("group", "name", "lines"),
    [
        (
            "task",
            "OldTask",
            [
                f"tally is called train_sums now; rename it and {NAMED}, with loss_denominator",
                "metrics is called train_metrics now; rename it and take the dict of named sums",
                f"examination is called eval_sums now; rename it and {NAMED}",
                "report is called eval_metrics now; rename it and take the dict of named sums",
            ],
        ),
        (
            "task",
            "HalfOldTask",
            [
                "metrics is called train_metrics now; rename it and take the dict of named sums",
                f"examination is called eval_sums now; rename it and {NAMED}",
            ],
        ),
        (
            "dataset",
            "old_data OldData",
            [
                f"{old} is called {new} now; rename it"
                for old, new in (
                    ("open", "loader"),
                    ("facts", "properties"),
                    ("about", "processor_spec"),
                    ("summary", "description"),
                    ("example", "sample_batch"),
                )
            ],
        ),
        ("dataset", "half_old_data HalfOld", ["facts is called properties now; rename it"]),
        (
            "loader",
            "old_loader OldLoader",
            [
                f"{old} is called {new} now; rename it"
                for old, new in (
                    ("train", "train_batches"),
                    ("evaluation", "eval_batches"),
                    ("streamed", "uses_workers"),
                    ("placement", "describe_placement"),
                )
            ],
        ),
        (
            "model",
            "OldModel",
            [
                "initialise is called init_from_batch now; rename it",
                "translated is called adapt_state_dict now; rename it",
            ],
        ),
    ],
)
def test_old_methods_are_answered_with_the_new_ones(
    group: str, name: str, lines: list[str], cli: Callable[..., Answer], package: Path
) -> None:
    target, _, owner = name.partition(" ")
    choice = {
        "model": ("dataset=digits", "~model", f"+model={{_target_: {PKG}.{target}}}"),
        "task": (*RUN, f"task._target_={PKG}.{target}"),
    }.get(group, ("--config-dir=mine", "dataset=own", f"dataset._target_={PKG}.{target}", *RUN[1:]))
    answer = cli(*choice, *QUICK, cwd=package)
    assert told(answer) == [f"{group}: {PKG}.{owner or target}.{line}" for line in lines]


def test_methods_of_other_purposes_are_left_alone_and_an_old_processor_is_told(
    cli: Callable[..., Answer], package: Path
) -> None:
    own = ("--config-dir=mine", "dataset=own", "~model", f"+model={{_target_: {PKG}.Model}}")
    trained = cli(*own, *QUICK, cwd=package)
    assert trained.code == 0, trained.err
    answer = cli(f"run={trained.run}", "input=a.png", "device=cpu", QUICK[-1], cwd=package, verb="predict")
    assert told(answer) == [
        f"kind: {PKG}.Processor.{old} is called {new} now; rename it"
        for old, new in (
            ("find", "list_inputs"),
            ("read", "load"),
            ("prepared", "collate"),
            ("answers", "predict"),
            ("table", "format_rows"),
            ("example", "random_inputs"),
        )
    ]


def test_both_names_are_no_mistake() -> None:
    class Both:
        def tally(self, loss, outputs, batch): ...

        def train_sums(self, loss, outputs, batch): ...

    class Answers:  # for any name
        def metrics(self): ...

        def __getattr__(self, name: str) -> object:
            return None

    check_method_names("task", Both())
    check_method_names("task", Answers())
    check_method_names("schedule", object())
    with pytest.raises(RenamedMethodError, match="is called train_metrics now"):
        check_method_names("task", type("Old", (), {"metrics": lambda self, tally: {}})())


def test_the_launcher_that_was_removed_is_named_so(cli: Callable[..., Answer]) -> None:
    (line,) = told(cli("-m", "hydra/launcher=vectorized", "seed=1,2"))
    assert line.startswith("hydra/launcher: vectorized was removed; leave it out")
