"""Pages of `--help` about groups, choices and keys: their comments and defaults stand in the YAML alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from bigmodel.commands.help_layout import reflow, two_columns
from bigmodel.config.coded_choices import coded_choices, coded_options
from bigmodel.config.outline import Outline
from bigmodel.config.yaml_file import GOES_WITH, File, Setting
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import format_count, truncate

_MOST_USED = {
    "train": (
        *("epochs", "batch_size", "optim.lr", "seed", "patience", "limit_batches", "init.from"),
        *("data_dir", "output_dir", "dry_run"),
    )
}
_FIRST = ("dataset", "task", "model")  # of the groups: they decide on the others
_ALL_KEYS = "keys"
_ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+),([^{}$]*)\}")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_HIDDEN = ("_target_", GOES_WITH, "hydra")


class Pages:
    """The pages of one command, from the outline of its config.

    `topics` are the words next to `--help`; a choice such as `model=gpt` decides which defaults are shown. `words` are
    the words of the command line that are no keys, with their meanings.
    """

    def __init__(
        self,
        command: str,
        outline: Outline,
        topics: Sequence[str],
        words: Mapping[str, str],
        columns: int,
    ) -> None:
        self._command = command
        self._topics = topics
        self._words = words
        self._columns = columns
        self._outline = outline
        self._groups = [group for group in self._outline.groups if "/" not in group]  # Hydra's own are not listed
        self._groups.sort(key=lambda group: _FIRST.index(group) if group in _FIRST else len(_FIRST))

    def groups(self) -> str:
        """The groups with their defaults."""
        rows = []
        for group in self._groups:
            entry, number = self._outline.group_entries[group], len(self._outline.choices(group))
            rows.append((f"{group}={entry.choice}", f"{format_count(number, 'choice')}: {entry.comment}"))
        lines = two_columns(rows, self._columns, one_line=True)
        return (
            "\n".join(["Groups, with the default choice; more: --help device, --help device=cpu", *lines])
            if rows
            else ""
        )

    def keys(self) -> str:
        """The keys most used, or all where these are few."""
        names = _MOST_USED.get(self._command)
        if names is None:
            return "\n".join(["Keys, with their defaults:", *two_columns(self._all_keys(), self._columns)])
        found = [(name, self._outline.find(name.split("."))) for name in names]
        rows = [row for name, setting in found if setting is not None for row in _rows(name, setting)]
        lines = two_columns(rows, self._columns, one_line=True)
        return "\n".join([f"Keys most used, with their defaults; more: --help {_ALL_KEYS}, --help optim.lr", *lines])

    def topics(self) -> str:
        """A page for each topic.

        Raises:
            ConfigError: a line for each that is neither a group nor a key.
        """
        pages: list[str] = []
        problems: list[str] = []
        for topic in dict.fromkeys(self._topics):
            name, sign, choice = topic.lstrip("+~").partition("=")
            try:
                if name in self._outline.groups:
                    pages.append(self._choice(name, choice) if sign else self._group(name))
                elif topic == _ALL_KEYS:
                    rows = [*self._all_keys(), *((f"{word}=...", self._words[word]) for word in self._words)]
                    pages.append("\n".join(two_columns(rows, self._columns)))
                elif name in self._words:
                    pages.append("\n".join(two_columns([(f"{name}=...", self._words[name])], self._columns)))
                else:
                    pages.append(self._key(name))
            except ConfigError as error:
                problems += error.lines
        if problems:
            raise ConfigError(*problems)
        return "\n\n".join(pages)

    def _group(self, group: str) -> str:
        entry, rows = self._outline.group_entries[group], [*self._choices(group).items()]
        about = entry.comment or "one of Hydra's groups"
        return "\n".join(
            [
                f"{group}: {about}; default: {entry.choice}",
                *two_columns(rows, self._columns, one_line=True),
                f"Choose with {group}=NAME; --help {group}=NAME shows the keys of one.",
            ]
        )

    def _choices(self, group: str) -> dict[str, str]:
        return {**coded_choices(group), **self._outline.choices(group)}

    def _choice(self, group: str, text: str) -> str:
        """Return the page of a choice, or of each of several, such as `[console,csv]`."""
        names = [name for name in re.split(r"[\[\],\s'\"]+", text) if name]
        known = self._choices(group)
        wrong = [name for name in names if name not in known and name != "null"]
        if wrong:
            raise ConfigError(
                *(f"{group}: there is no '{truncate(name)}'; {suggest(name, [*known])}" for name in wrong)
            )
        pages = [self._file(group, name) for name in names if name != "null"]
        return "\n\n".join(pages) if pages else self._group(group)

    def _file(self, group: str, name: str) -> str:
        if name in coded_choices(group) and name not in self._outline.choices(group):
            return self._page_of_code(group, name)
        file = self._outline.read(f"{group}/{name}")
        lines = [reflow(f"{group}={name}: {file.comment}", self._columns)]
        based = [entry.choice for entry in file.defaults if not entry.group and entry.choice != "_self_"]
        lines += [f"All of --help {group}={base}, and:" for base in based]
        if chosen := " ".join(_override_choices(file)):
            lines.append(reflow(f"Chosen with it, where nothing else is: {chosen}", self._columns))
        own = {key: one for key, one in file.settings.items() if key not in _HIDDEN}
        prefix = "" if file.is_global else f"{group.replace('/', '.')}."
        rows = [row for key, one in own.items() for row in _rows(f"{prefix}{key}", one)]
        target = file.settings.get("_target_")
        return "\n".join([*lines, *two_columns(rows, self._columns), *([f"Built by {target.value}"] if target else [])])

    def _page_of_code(self, group: str, name: str) -> str:
        options = {
            key: Setting("", "null" if value is None else str(value))
            for key, value in coded_options(group, name).items()
        }
        rows = [_row(f"{group.replace('/', '.')}.{key}", one) for key, one in options.items()]
        return "\n".join(
            [
                reflow(f"{group}={name}: {coded_choices(group)[name]}", self._columns),
                *two_columns(rows, self._columns),
            ]
        )

    def _key(self, name: str) -> str:
        setting = None if {*_HIDDEN} & {*name.split(".")} else self._outline.find(name.split("."))
        if setting is not None:
            return "\n".join(two_columns(_rows(name, setting), self._columns))
        group, _, key = name.partition(".")
        rows = [*self._in_choices(group, key)] if group in self._groups and key not in ("", *_HIDDEN) else []
        if rows:
            return "\n".join(two_columns(rows, self._columns))
        known = [*self._groups, *(key for key, _ in _paths("", self._outline.settings)), *self._words, _ALL_KEYS]
        leaves = [path for path in known if path.rpartition(".")[2] == name]
        hint = f"did you mean {leaves[0]}?" if leaves else suggest(name, known)
        see = hint if hint.startswith("did") else f"see bigmodel-{self._command} --help"
        raise ConfigError(f"{truncate(name)}: there is no such group or key; {see}")

    def _in_choices(self, group: str, key: str) -> Iterator[tuple[str, str]]:
        """Yield the rows of a key that only other choices of a group have, as `model.layers` of `gpt`."""
        for choice in self._outline.choices(group):
            settings = self._outline.read(f"{group}/{choice}").settings
            for path, setting in _paths("", settings):
                if path == key:
                    word, comment = _row(f"{group}.{key}", setting)
                    yield word, f"{group}={choice}{f': {comment}' if comment else ''}"

    def _all_keys(self) -> list[tuple[str, str]]:
        root = {name: one for name, one in self._outline.root_settings.items() if name not in _HIDDEN}
        return [row for name, one in root.items() for row in _rows(name, one)]


def _rows(name: str, setting: Setting) -> list[tuple[str, str]]:
    """Return a row for a key, or for each of the keys below it."""
    if not setting.keys:
        return [_row(name, setting)]
    below = [(path, one) for path, one in _paths(f"{name}.", setting.keys) if not path.endswith("_target_")]
    return [*([(name, setting.comment)] if setting.comment else []), *(_row(path, one) for path, one in below)]


def _row(name: str, setting: Setting) -> tuple[str, str]:
    value, comment = setting.value or "", setting.comment
    if value == "???":
        return name, f"{comment} (required)".lstrip()
    if reference := _REFERENCE.fullmatch(value):
        comment = comment or f"taken from {reference[1]}"
    return f"{name}={_ENVIRONMENT.sub(lambda match: os.environ.get(match[1], match[2]), value)}", comment


def _paths(prefix: str, settings: Mapping[str, Setting]) -> Iterator[tuple[str, Setting]]:
    for key, setting in settings.items():
        if setting.keys:
            yield from _paths(f"{prefix}{key}.", setting.keys)
        else:
            yield f"{prefix}{key}", setting


def _override_choices(file: File) -> Iterator[str]:
    for entry in file.defaults:
        if entry.overrides:
            yield f"{entry.group}={entry.choice}"
