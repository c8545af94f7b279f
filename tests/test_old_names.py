"""A user's package that was written for an earlier version is told the new names, of imports and of methods."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.config import old_names
from bigmodel.config.old_imports import renamed_imports
from bigmodel.config.old_methods import RenamedMethodError, check_method_names
from conftest import Answer, is_quiet

SOURCE = Path(old_names.__file__).parents[1]

IMPORTS = """import torch

from bigmodel.augment import Augment
from bigmodel.datasets.images import ImageDataset
from bigmodel.interfaces import (
    Batch,
    Data,
)


def made(input_shape, num_classes, outputs):
    return Augment
"""
LATE = """from torch import nn

import bigmodel.interfaces as protocols


class Asks(nn.Module):
    def __init__(self):
        super().__init__()
        protocols.Translating


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


def test_old_imports_are_answered_with_the_new_ones(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "old_imports_pkg").mkdir()
    (tmp_path / "old_imports_pkg" / "__init__.py").touch()
    (tmp_path / "old_imports_pkg" / "data.py").write_text(IMPORTS)
    words = (
        "dataset=digits",
        "model=mlp",
        "dataset._target_=old_imports_pkg.data.made",
        "trust=[old_imports_pkg]",
        "device=cpu",
    )
    lines = is_quiet(cli(*words, cwd=tmp_path), code=2)
    file = str(Path("old_imports_pkg", "data.py"))
    assert lines == [
        f"{file}, line 3: bigmodel.augment.Augment is bigmodel.datasets.images.augment.ImageAugment now",
        f"{file}, line 4: bigmodel.datasets.images.ImageDataset is bigmodel.datasets.images.dataset.ImageDataset now",
        f"{file}, line 7: bigmodel.interfaces.Data is bigmodel.interfaces.Loader now",
    ]
    assert not (tmp_path / "outputs").exists()


def test_so_are_those_that_come_later(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "late_imports_pkg.py").write_text(LATE)
    for name, line in (
        ("Asks", "line 9: bigmodel.interfaces.Translating is bigmodel.interfaces.AdaptsStateDict now"),
        ("Late", "line 18: bigmodel.padding.present is bigmodel.padding.valid_mask now"),
    ):
        own = ("~model", f"+model={{_target_: late_imports_pkg.{name}}}", "trust=[late_imports_pkg]")
        answer = cli("dataset=digits", *own, "device=cpu", "epochs=1", "limit_batches=1", cwd=tmp_path)
        assert told(answer) == [f"late_imports_pkg.py, {line}"]


MEMBERS = """import torch

from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.interfaces import Batch

ONE = torch.zeros(1)


def keyword():
    TensorDataset({}, facts={}, summary="", carried={}, fingerprint="")


def field():
    return Batch(ONE, ONE).samples


def method():
    return Batch(ONE, ONE).pieces(2)


def of_another_kind():
    return Batch(ONE, ONE).nothing
"""


def test_old_keywords_and_attributes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old_members_pkg.py").write_text(MEMBERS)
    module = importlib.import_module("old_members_pkg")
    for name, line in (
        ("keyword", "line 10: TensorDataset.facts is properties now"),
        ("field", "line 14: Batch.samples is sample_ids now"),
        ("method", "line 18: Batch.pieces is microbatches now"),
        ("of_another_kind", ""),
    ):
        with pytest.raises((TypeError, AttributeError)) as failed:
            getattr(module, name)()
        assert list(renamed_imports(failed.value)) == ([f"old_members_pkg.py, {line}"] if line else [])


def test_other_failures_of_an_import_keep_their_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, line in enumerate(
        ("import bigmodel.nothing", "from bigmodel.padding import nothing", "import no_such")
    ):
        (tmp_path / f"other_failures_{number}.py").write_text(f"{line}\n")
        with pytest.raises(ImportError) as failed:
            importlib.import_module(f"other_failures_{number}")
        assert not renamed_imports(failed.value)


def test_every_new_name_is_there() -> None:
    for module, names in old_names.NAMES.items():
        for old in names:
            new = old_names.current_name(module, old)
            assert new is not None
            home, _, name = new.rpartition(".")
            assert name in _defined(home), f"{module}.{old}: {new}"
    for old, new in old_names.MODULES.items():
        assert _file(new).is_file(), f"{old}: {new}"


def _file(module: str) -> Path:
    path = SOURCE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _defined(module: str) -> set[str]:
    found = set()
    for node in ast.parse(_file(module).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("job.Job", "training.state.TrainState"),
        ("assembly.Parts", "training.build.TrainingRun"),
        ("assembly.assemble", "training.build.build_run"),
        ("loop.Plan", "training.loop.LoopOptions"),
        ("clock.now", "runtime.timing.synchronized_time"),
        ("run_directory.Lock", "runs.lock.RunLock"),
        ("results.reading.Run", "runs.records.RunRecord"),
        ("saves.Saves", "training.saver.AsyncCheckpointer"),
        ("targets.nearest", "errors.suggest"),
    ],
)
def test_names_of_the_core_lead_to_their_successors(old: str, new: str) -> None:
    module, _, name = old.rpartition(".")
    assert old_names.current_name(f"bigmodel.{module}", name) == f"bigmodel.{new}"


def test_what_has_no_successor_is_said_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stacks_jobs.py").write_text(
        "from bigmodel.interfaces import Reseeding\nimport bigmodel.vectorized.stack\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        importlib.import_module("stacks_jobs")
    lines = [line.partition(": ")[2] for line in renamed_imports(caught.value)]
    assert lines == [
        f"bigmodel.{name} was removed and has no successor" for name in ("interfaces.Reseeding", "vectorized")
    ]


def test_a_call_of_an_old_method_of_the_parent_is_answered_with_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calls_up.py").write_text(
        "from bigmodel.tasks.classification import Classification\n\n\nclass Up(Classification):\n"
        "    def __init__(self):\n        pass\n\n"
        "    def train_metrics(self, sums):\n        return super().metrics(sums)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError) as caught:
        importlib.import_module("calls_up").Up().train_metrics({})
    (line,) = renamed_imports(caught.value)
    assert line.endswith("calls_up.py, line 9: Classification.metrics is train_metrics now")


def test_the_launcher_that_was_removed_is_named_so(cli: Callable[..., Answer]) -> None:
    (line,) = told(cli("-m", "hydra/launcher=vectorized", "seed=1,2"))
    assert line.startswith("hydra/launcher: vectorized was removed; leave it out")
