"""YAML files as Hydra asks for them: read when a config needs them, by one parser, within bounds.

Directories of `--config-dir` and `--config-path` may be a stranger's, and may hold files that the run has nothing to do
with: those are never opened.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from bigmodel.config.goes_with import KEY, Brought, defaults_of
from bigmodel.config.location import conf_directory
from bigmodel.config.renamed import with_current_keys
from bigmodel.config.resolvers import reject_resolvers
from bigmodel.config.yaml_limits import ANOTHER, yaml_problem, yaml_text
from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line, truncate

_HEADER = "# @package _global_"
_OTHER_BASE = re.compile(r"[+-]?(0[0-7_]*[0-7]|\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?)")  # to 8, to 60
_GROUP = re.compile(r"(override +)?(optional +)?/?[^\s/@][^\s@]*(@\S*)?")  # anything else fails an assertion of Hydra
_ENTRY = re.compile(r"(override +)?(?:optional +)?(/?[\w/]+)")  # without a package of its own
_OVERRIDE = re.compile(r"override\s+/?(hydra/\w+)(?:@\S+)?")


_C_PARSER: tuple[type, ...] = (yaml.cyaml.CParser,) if yaml.__with_libyaml__ else ()  # six times as fast


class _Loader(*_C_PARSER, get_yaml_loader()):  # type: ignore[misc]
    """Hydra's dialect without the octal and sexagesimal numbers of YAML 1.1 (`010` as 8, `1:30` as 90), which the
    command line does not take either.
    """

    def __init__(self, text: str) -> None:
        if not _C_PARSER:
            super().__init__(text)
            return
        _C_PARSER[0].__init__(self, text)  # type: ignore[misc]
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Construct a number. ConstructorError where YAML 1.1 would read another one than it looks like."""
        whole = node.tag == "tag:yaml.org,2002:int"
        value: int | float = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        if _OTHER_BASE.fullmatch(node.value):
            problem = f"{ANOTHER}{truncate(node.value, 40)} would be read as {value}; write that, or the text in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


class OwnSource(FileConfigSource):
    """Config source for Hydra of `own://` directories."""

    trust: ClassVar[tuple[str, ...]] = ()  # what a file that lies in a run may read
    chosen: ClassVar[dict[str, str]] = {}  # of Hydra's groups, by files besides the primary one
    last: ClassVar[Path | None] = None  # the file that was read last
    brought: ClassVar[Brought] = Brought()

    @staticmethod
    def scheme() -> str:
        return "own"

    def is_config(self, config_path: str) -> bool:
        """Return whether there is such a file; what a file brings along is read as one below it."""
        return bool(super().is_config(config_path.removesuffix(f"/{KEY}")))

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file of a group, or the primary one.

        Raises:
            ConfigError: it is not YAML that a config can be made of; file and line are named.
        """
        choice = config_path.removesuffix(f"/{KEY}")
        file = Path(self.path) / self._normalize_file_name(choice)
        if not file.exists():
            raise ConfigLoadError(f"Config not found : {file}")
        OwnSource.last = file
        text = yaml_text(file)
        tree = _load(file, text)
        header = _header(file, text)
        if config_path.partition("/")[0] == "experiment" and header.get("package") is None:
            what = "is empty" if not tree else "would set keys of 'experiment', which has none"
            raise ConfigError(f"{file}, line 1: {what}; begin an experiment with the line '{_HEADER}'")
        if lies_in_a_run(file):
            reject_resolvers(file, _as_config(file, tree), OwnSource.trust)
        if isinstance(hydra := tree.get("hydra"), Mapping) and "searchpath" in hydra:
            raise ConfigError(f"{file}: hydra.searchpath: has no effect here; use --config-dir DIR")
        group = config_path.rpartition("/")[0].replace("/", ".")
        is_own = not file.is_relative_to(conf_directory())
        if is_own:
            _check_defaults(file, tree)
        if group == "experiment":
            _check_overrides(file, text, tree, OwnSource.brought.groups)
        if choice != config_path:
            tree = OwnSource.brought.values_of(tree)
        elif group:
            OwnSource.chosen = {**_choices(tree), **OwnSource.chosen}
            tree = OwnSource.brought.with_choices(file, config_path, tree)
        else:
            OwnSource.brought.read_root(tree, is_own)
        if is_own:  # the built-in files have no old key
            package = header.get("package") or group
            tree = with_current_keys(tree, "" if package == "_global_" else package)
        config = _as_config(file, tree)
        return ConfigResult(config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)

    @staticmethod
    def circle() -> str:
        """Return the message for files that choose each other, which Hydra reads without end; it names the last one."""
        return f"{OwnSource.last}: defaults: this file chooses itself, or one that chooses it; remove that entry"


def _header(file: Path, text: str) -> dict[str, str | None]:
    """`# @package ...`, anywhere in the comments that a file begins with."""
    comments = itertools.takewhile(lambda line: not line.strip() or line.lstrip().startswith("#"), text.splitlines())
    lines = [line for line in comments if re.match(r"\s*#\s*@", line)]
    try:
        return ConfigSource._get_header_dict("\n".join(lines))
    except ValueError as error:
        raise ConfigError(f"{file}: {first_line(error)}") from error


def _check_defaults(file: Path, tree: Mapping[Any, Any]) -> None:
    """Raise ConfigError for an entry of a defaults list that is neither a name nor a group with its choice."""
    for entry in defaults_of(tree):
        pairs = list(entry.items()) if isinstance(entry, dict) else []
        if len(pairs) == 1 and isinstance(pairs[0][0], str) and _GROUP.fullmatch(pairs[0][0]):
            choice = pairs[0][1]
            chosen = choice if isinstance(choice, list) else [choice or "null"]
            if all(isinstance(one, str) for one in chosen):
                continue
        elif isinstance(entry, str) and entry.strip():
            continue
        raise ConfigError(f"{file}: defaults: an entry is a group and its choice, as 'model: cnn'; got {entry!r:.80}")


def _check_overrides(file: Path, text: str, tree: Mapping[Any, Any], groups: Collection[str]) -> None:
    """Raise ConfigError for an entry of an experiment's defaults that names a group of the root file without choosing
    from it: Hydra looks for `experiment/model/cnn`, and does without where it is optional.
    """
    pairs = [(str(key), pair[key]) for pair in defaults_of(tree) if isinstance(pair, Mapping) for key in pair]
    for key, choice in pairs:
        override, name = match.groups() if (match := _ENTRY.fullmatch(key)) else (None, "")
        group = name.removeprefix("/")
        is_known = group in groups or group.startswith("hydra/")
        if is_known and not (override and name != group) and not (file.parent / name).is_dir():
            lines = (n for n, line in enumerate(text.splitlines(), 1) if re.match(rf"\s*- +{key} *:", line))
            where = "".join(f", line {number}" for number in itertools.islice(lines, 1))
            right = f"override /{group}: {truncate(choice)}"
            raise ConfigError(f"{file}{where}: defaults: '{key}' chooses nothing in an experiment; write '{right}'")


def _choices(tree: Mapping[Any, Any]) -> dict[str, str]:
    """Return choices from Hydra's groups in a file's defaults, such as `override /hydra/sweeper: optuna`."""
    entries = [entry for entry in defaults_of(tree) if isinstance(entry, Mapping)]
    found = [(_OVERRIDE.fullmatch(str(key)), value) for entry in entries for key, value in entry.items()]
    return {match[1]: str(value) for match, value in found if match}


def read_yaml(file: Path) -> DictConfig:
    """Load the keys of a YAML file, in the dialect that Hydra reads: `1e-3` is a number, a date is text.

    Raises:
        ConfigError: it is not YAML, names a key twice, or holds something else than keys.
    """
    return _as_config(file, _load(file, yaml_text(file)))


def _load(file: Path, text: str) -> dict[Any, Any]:
    try:
        loaded = yaml.load(text, _Loader)  # a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(yaml_problem(file, error)) from error
    except Exception as error:  # a tag whose value is not of its kind, as `!!bool abc`, raises anything
        raise ConfigError(f"{file}: cannot be read as a config: {type(error).__name__}: {first_line(error)}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        kind = "a list" if isinstance(loaded, list) else f"'{truncate(loaded, 40)}'"
        raise ConfigError(f"{file}: must hold keys, as 'epochs: 3', not {kind}")
    return loaded


def _as_config(file: Path, tree: Mapping[Any, Any]) -> DictConfig:
    try:
        config = OmegaConf.create(dict(tree))
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read as a config: {first_line(error)}") from error
    assert isinstance(config, DictConfig)
    return config


def lies_in_a_run(file: Path) -> bool:
    """Return whether a YAML file belongs to a run or a sweep, judged by the files next to it."""
    beside = ("environment.json", "summary.json", "checkpoints", "metrics.jsonl")
    return any((file.parent / name).exists() for name in beside) or (file.parent.parent / "sweep.json").exists()
