"""List what could follow on a command line: flags, groups, choices, keys, values, runs and files."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from bigmodel.commands.completion.paths import complete_path, complete_run
from bigmodel.commands.completion.script import SHELLS
from bigmodel.config.coded_choices import coded_choices
from bigmodel.config.location import ConfigSource, conf_directory
from bigmodel.config.outline import Outline

_PATH_FLAGS = ("--config-path", "-cp")  # searched before the others
_FOLDER_FLAGS = ("--config-dir", "-cd", *_PATH_FLAGS)
_NAME_FLAGS = ("--config-name", "-cn")
_FLAGS = {
    "--config-dir": "add your own YAML groups to the built-in ones",
    "--config-path": "start from a YAML of your own",
    "--config-name": "name of that YAML",
    "-v": "show the traceback of an error",
    "--version": "",
    "--help": "",
}
_TRAIN_FLAGS = {
    "-m": "run every combination of comma-separated values as a sweep",
    "--completion": "print the script that completes these commands in a shell",
}
_TRUST = {"trust": "packages that YAML may name"}
_TRAIN_KEYS = {"resume": "go on with a run", "seeds": "train with as many seeds", **_TRUST}
_SWEEP_KEYS = {"jobs": "jobs run at the same time", "on_failure": "continue, stop or retry"}
_RUN_KEYS = ("run", "resume")
_FOLDER_KEYS = ("data_dir", "output_dir", "root", "folder")  # last parts of keys
_FILE_KEYS = ("input", "output", "file", "path", "pretrained", "from")


@dataclass(frozen=True)
class Candidate:
    """A word that could stand at the end of the line, what it means, and whether it is only a beginning."""

    word: str
    meaning: str = ""
    is_open: bool = False


def list_candidates(words: Sequence[str], current: str) -> list[Candidate]:
    """Return what the word at the end of a command line could become; `words` stand before it."""
    command = Path(words[0]).name.removeprefix("bigmodel-") if words else ""
    given = words[1:]
    last = given[-1] if given else ""
    found: Iterable[Candidate]
    if last in _FOLDER_FLAGS:
        found = _as_candidates(complete_path(current, folders_only=True))
    elif last == "--completion":
        found = map(Candidate, SHELLS)
    elif (conf_directory() / f"{command}.yaml").is_file():
        found = _of_config(command, given, current, last in _NAME_FLAGS)
    else:
        found = _of_options(command, current)
    return [one for one in found if one.word.startswith(current) and one.word.isprintable()]


def _of_options(command: str, current: str) -> Iterator[Candidate]:
    """Candidates of a command that takes options and runs, and has no config."""
    try:
        module = importlib.import_module(f"bigmodel.commands.{command}")
        defaults, choices = module.DEFAULTS, module.CHOICES
    except (ImportError, AttributeError, ValueError):
        return
    key, sign, value = current.partition("=")
    if sign and key in choices:
        yield from (Candidate(f"{key}={one}") for one in choices[key] if one)
    elif sign and key in defaults:
        yield from _with_prefix(f"{key}=", _paths_of(key, value))
    elif current.startswith("-"):
        yield from (Candidate(flag, _FLAGS[flag]) for flag in ("-v", "--version", "--help"))
    else:
        yield from (Candidate(f"{one}=", is_open=True) for one in defaults)
        if command != "runs":
            yield from _as_candidates(complete_run(current))


def _of_config(command: str, given: Sequence[str], current: str, wants_name: bool) -> Iterator[Candidate]:
    """Candidates of a command with a config."""
    outline = _outline(command, given)
    mark = current[: len(current) - len(current.lstrip("+~"))]
    key, sign, value = current[len(mark) :].partition("=")
    if wants_name:
        yield from (Candidate(name, meaning) for name, meaning in outline.choices("").items())
    elif sign:
        yield from _with_prefix(f"{mark}{key}=", _values(command, outline, key, value))
    elif current.startswith("-"):
        flags = _FLAGS | (_TRAIN_FLAGS if command == "train" else {})
        yield from (Candidate(flag, meaning) for flag, meaning in flags.items())
    else:
        sweep = "-m" in given or "--multirun" in given
        yield from _with_prefix(mark, _keys(command, outline, key, sweep))


def _keys(command: str, outline: Outline, typed: str, sweep: bool) -> Iterator[Candidate]:
    """Groups and keys; those below a key are listed once its dot is typed."""
    path = typed.split(".")
    before = typed[: len(typed) - len(path[-1])]
    if not before:
        yield from (Candidate(f"{group}=", "a choice of YAML files", True) for group in _groups(outline))
        own = (_TRAIN_KEYS if command == "train" else _TRUST) | (_SWEEP_KEYS if sweep else {})
        yield from (Candidate(f"{key}=", meaning, True) for key, meaning in own.items())
    parent = outline.find(path[:-1]) if before else None
    for name, setting in (parent.keys if parent is not None else {} if before else outline.settings).items():
        meaning = setting.comment or (f"default: {setting.value}" if setting.value else "")
        if setting.value is not None and name not in ("_target_", *outline.groups):
            yield Candidate(f"{before}{name}=", meaning, True)
        elif setting.keys and (before or name not in (*outline.groups, "hydra") or name == path[-1]):
            yield Candidate(f"{before}{name}.", meaning, True)


def _groups(outline: Outline) -> list[str]:
    return [group for group in outline.groups if group != "hydra/job_logging"]


def _values(command: str, outline: Outline, key: str, typed: str) -> Iterator[Candidate]:
    """Values of a key. In a list, or a sweep's values, the last one is completed."""
    path = key.split(".")
    if key in _RUN_KEYS or path[-1] in (*_FOLDER_KEYS, *_FILE_KEYS):
        yield from _paths_of(key, typed)
        return
    begun = _text_before_last_item(typed)
    if key in outline.groups:
        listed = {**outline.choices(key), **coded_choices(key)}
    elif key == "on_failure":
        from bigmodel.sweeps.state.settings import OnFailure

        listed = dict.fromkeys(get_args(OnFailure), "")
    else:
        listed = dict.fromkeys(outline.values(command, path), "")
    taken = begun.strip("[").split(",")
    for value, meaning in listed.items():
        if value not in taken:
            yield Candidate(begun + value, meaning, begun.startswith("["))


def _text_before_last_item(typed: str) -> str:
    """Return the text of a list up to its last value."""
    return typed[: max(typed.rfind(","), typed.rfind("[")) + 1]


def _paths_of(key: str, typed: str) -> list[Candidate]:
    name = key.rpartition(".")[2]
    if key in _RUN_KEYS:
        begun = _text_before_last_item(typed)
        found = [begun + path for path in complete_run(typed[len(begun) :])]
    elif name in (*_FOLDER_KEYS, *_FILE_KEYS):
        found = complete_path(typed, folders_only=name in _FOLDER_KEYS)
    else:
        found = []
    return _as_candidates(found)


def _as_candidates(paths: Sequence[str]) -> list[Candidate]:
    return [Candidate(path, is_open=path.endswith("/")) for path in paths]


def _with_prefix(before: str, found: Iterable[Candidate]) -> Iterator[Candidate]:
    return (Candidate(before + one.word, one.meaning, one.is_open) for one in found)


def _outline(command: str, given: Sequence[str]) -> Outline:
    """The config that the finished words choose."""
    folders: dict[bool, Path] = {}
    name, words = command, iter(given)
    for word in words:
        key, sign, value = word.partition("=")
        if key in (*_FOLDER_FLAGS, *_NAME_FLAGS):
            value = value if sign else next(words, "")
            if key in _NAME_FLAGS:
                name = value
            else:
                folders[key in _PATH_FLAGS] = Path(value).expanduser()
    own = [folders[kind] for kind in (True, False) if kind in folders]
    return Outline(ConfigSource((*own, conf_directory()), name), given)
