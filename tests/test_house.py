"""The house drawn from its imports, and the promises its files make about each other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import bigmodel
from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from conftest import slow_where
from test_contract import beside
from test_predict_options import processor_options

ROOT = Path(__file__).parents[1]
PACKAGE = Path(bigmodel.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LEAVES = ("models", "tasks", "datasets", "optim", "listeners", "inference.processors")
ROOMS = frozenset(  # what lies at the root: twelve folders, and the few files that all of them share
    {"commands", "sweeps", "inference", "tasks", "training", "datasets", "models", "optim", "listeners", "runs"}
    | {"runtime", "config", "__main__", "cli", "python_api", "interfaces", "events", "errors", "seeds", "padding"}
    | {"constraints", "formatting", "metric_spec", "quoting", "redaction", "safe_files"}
)
FLOORS = (  # from the ground up: a room imports from those below it, and from its own
    ("errors", "seeds", "padding", "constraints", "formatting", "redaction", "quoting", "safe_files", "metric_spec"),
    ("interfaces", "events"),
    ("runtime", "datasets.loading", "models.decoding", "models.weights", "listeners", "tasks.metrics"),
    ("config", "datasets.files", "models", "optim"),
    ("runs", "datasets.tables", "datasets.audio"),
    ("runs.comparison", "runs.display", "datasets.images", "datasets.text"),
    ("tasks",),
    ("training",),
    ("inference", "training.tuning"),
    ("inference.processors",),
    ("runs.report",),
    ("runs.sharing",),
    ("commands",),
    ("sweeps.engines",),
    ("sweeps.state",),
    ("sweeps.search",),
    ("sweeps",),
    ("commands.completion",),
    ("cli",),
    ("python_api", "__main__"),
)
TOUCH = {  # what only these rooms or files may import
    "hydra": ("config", "cli", "sweeps.by_hydra", "sweeps.hydra_task"),
    "omegaconf": ("config", "cli", "sweeps.by_hydra", "sweeps.hydra_task"),
}


@cache
def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def _imports(file: Path, *, anywhere: bool) -> tuple[str, ...]:
    """Dotted names a file imports; without `anywhere` only those that run when it is imported."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}: a relative import"
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            elif anywhere or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield from walk(child)

    return tuple(walk(ast.parse(file.read_text(encoding="utf-8"))))


def _own(file: Path, *, anywhere: bool = False) -> set[str]:
    found = set()
    for dotted in _imports(file, anywhere=anywhere):
        first, _, rest = dotted.partition(".")
        if first == "bigmodel":
            found.add(rest if rest in MODULES else rest.rpartition(".")[0])
    return found - {""}


MODULES = {_name(file) for file in FILES}


def test_there_is_a_house_to_look_at() -> None:
    assert {"cli", "training.loop", "training.state", "models.cnn", "commands.train"} <= {_name(file) for file in FILES}
    assert "runs.checkpoint" in _own(PACKAGE / "commands" / "train.py")


def test_imports_make_no_cycle() -> None:
    graph = {_name(file): _own(file, anywhere=True) - {_name(file)} for file in FILES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def _room(module: str) -> str:
    """The innermost folder that a module lies in; the module itself at the root."""
    return module.rpartition(".")[0] if "." in module else module


def test_the_root_has_few_rooms() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__"} == ROOMS


def test_no_arrow_goes_up_and_no_room_is_in_a_circle() -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    arrows = {
        (_name(file), name)
        for file in FILES
        for name in _own(file, anywhere=True)
        if _name(file) and name in MODULES and _room(_name(file)) != _room(name)
    }
    assert len(arrows) > 100
    assert {_room(module) for arrow in arrows for module in arrow} <= {*floor}
    assert {(a, b) for a, b in arrows if floor[_room(a)] < floor[_room(b)]} == set()
    between = {(_room(a), _room(b)) for a, b in arrows if floor[_room(a)] == floor[_room(b)]}
    list(TopologicalSorter({a: {b for x, b in between if x == a} for a, _ in between}).static_order())


MAX_BODY = 55  # lines of a function without its signature and docstring; a longer one holds two ideas


def test_functions_are_short() -> None:
    long = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if length > MAX_BODY:
                    long[f"{_name(file)}.{node.name}"] = length
    assert long == {}


def test_leaves_know_no_config() -> None:
    forbidden = {"config", "cli", "training", "runs", "commands", "sweeps", "hydra", "omegaconf"}
    leaves = [file for file in FILES if _name(file).startswith(tuple(f"{room}." for room in LEAVES))]
    known = {
        _name(f): {n.split(".")[0] for n in {*_own(f, anywhere=True), *_imports(f, anywhere=True)}} for f in leaves
    }
    assert len(known) > len(LEAVES)
    assert {name: names & forbidden for name, names in known.items() if names & forbidden} == {}


@pytest.mark.parametrize("library", TOUCH)
def test_each_heavy_library_has_its_few_files(library: str) -> None:
    touching = {_name(f) for f in FILES if any(i.split(".")[0] == library for i in _imports(f, anywhere=True))}
    assert touching
    assert {name for name in touching if not name.startswith(TOUCH[library])} == set()


@pytest.mark.parametrize(
    "name", [*("runs.checkpoint", "runs.directory"), "training.state", "commands.resume", "inference.predictor"]
)
def test_no_checkpoint_is_ever_unpickled(name: str) -> None:
    file = PACKAGE / f"{name.replace('.', '/')}.py"
    assert not {i for i in _imports(file, anywhere=True) if i.split(".")[0] in ("pickle", "dill", "joblib", "shelve")}
    assert "torch.load(" not in file.read_text(encoding="utf-8")


def test_only_two_files_touch_torch_distributed() -> None:
    found = {_name(f) for f in FILES if any(i.startswith("torch.distributed") for i in _imports(f, anywhere=True))}
    assert found <= {"runtime.distributed", "runtime.sharding"}


def test_the_loop_knows_no_config_files_or_terminal() -> None:
    loop = PACKAGE / "training" / "loop.py"
    assert _own(loop) <= {"runtime.device", "training.evaluation", "events", "interfaces", "training.state"}
    assert len(loop.read_text().splitlines()) < 100


@pytest.mark.parametrize(
    "name",
    [
        *("cli", "commands.exit_codes", "commands.help", "runtime.signals", "errors", "constraints"),
        *("config.location", "config.schema", "config.instantiate", "sweeps.resume", "sweeps.by_hydra"),
        *("commands.compare", "commands.runs", "commands.completion.answer"),
    ],
)
def test_what_answers_fast_imports_no_torch(name: str) -> None:
    seen, left = set(), {name}
    while left:
        module = left.pop()
        seen.add(module)
        file = PACKAGE / (module.replace(".", "/") + ".py")
        if not file.is_file():
            continue
        assert not {i for i in _imports(file, anywhere=False) if i.split(".")[0] in ("torch", "numpy", "safetensors")}
        left |= _own(file) - seen
    assert seen


def test_one_file_knows_how_the_folder_of_a_step_is_named() -> None:
    knowing = re.compile(r"""["']step-|:08d|\.name\[\d+:\]""")
    found = {_name(file) for file in FILES if knowing.search(file.read_text(encoding="utf-8"))}
    assert found == {"runs.checkpoint_path"}


def test_files_are_short() -> None:
    lengths = {_name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length >= 300} == {}


def test_no_junk_drawer() -> None:
    assert not [f for f in FILES if f.stem in ("utils", "util", "helpers", "common", "misc", "registry")]


CHOICES = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("*/*.yaml"))


@pytest.mark.parametrize(
    "choice",
    slow_where([path for path in CHOICES if path.parts[0] != "experiment"], lambda path: path not in CHOICES[::4]),
    ids=str,
)
def test_every_choice_composes_and_passes_the_check(choice: Path) -> None:
    group, name = choice.parts[0], choice.stem
    chosen = f"listeners=[{name}]" if group == "listeners" else f"{group}={name}"
    needs = [f"{group}.{key}=x" for key, value in _lines(choice) if value == "???"]
    tasks = {"dataset=conversations": "instruction_tuning", "dataset=preferences": "preference"}
    needs += [f"task={tasks[chosen]}"] if chosen in tasks else []
    composed = compose("train", [*beside(group, name), chosen, *needs], ConfigSource((conf_directory(),), "train"))
    assert composed.values[group]


def _lines(choice: Path) -> list[tuple[str, str]]:
    text = (ROOT / "conf" / choice).read_text(encoding="utf-8")
    return [(key, value) for key, value in re.findall(r"(?m)^(\w+): *([^\s#]+)", text)]


def test_every_choice_says_what_it_is() -> None:
    for choice in CHOICES:
        lines = (ROOT / "conf" / choice).read_text(encoding="utf-8").splitlines()
        first = next(line for line in lines if "@package" not in line)
        assert re.match(r"# .{4}", first), choice


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "export"])
def test_settings_and_yaml_name_the_same_keys(command: str) -> None:
    from dataclasses import fields

    from bigmodel.config import schema as settings

    names = {field.name for field in fields(getattr(settings, command.capitalize()))}
    if command == "predict":  # whose other keys are options of the processors
        names |= {field.name for options in processor_options().values() for field in fields(options)}
    root = OmegaConf.load(ROOT / "conf" / f"{command}.yaml")
    entries = [str(key) for entry in root.defaults if hasattr(entry, "keys") for key in entry]
    groups = {key for key in entries if not key.startswith("override ")}
    assert {str(key) for key in root} - {"defaults", "hydra"} | set(groups) - {"experiment"} == names


def test_the_conf_directory_is_the_one_at_the_root() -> None:
    assert conf_directory().resolve() == ROOT / "conf"


def test_public_names_are_exact() -> None:
    assert bigmodel.__all__ == ["__version__", "load", "runs", "train"]
    own = {name for name, value in vars(bigmodel).items() if getattr(value, "__module__", "").startswith("bigmodel")}
    public = {name for name in own if not name.startswith("_")}
    assert public == {"load", "runs", "train"}
    assert all(hasattr(bigmodel, name) for name in bigmodel.__all__)


def test_the_changelog_knows_this_version() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.is_file():
        pytest.skip("there is no CHANGELOG.md yet")
    first = re.search(r"(?m)^## \[?v?(\d+\.\d+\.\d+)", changelog.read_text(encoding="utf-8"))
    assert first is not None
    assert first.group(1) == bigmodel.__version__
