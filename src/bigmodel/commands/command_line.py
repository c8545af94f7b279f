"""A command line as it was typed: flags, the words that no config has, and overrides. Imports no Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bigmodel.config.hydra_keys import check_hydra_keys, is_hydra_key
from bigmodel.config.location import ConfigSource, conf_directory
from bigmodel.config.override_text import describe_repeated, override_key
from bigmodel.datasets.files.locations import PATH_KEYS
from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate
from bigmodel.quoting import make_readable, quote

SWEEP_KEYS = ("jobs", "on_failure")
_TRAIN_KEYS = ("resume", "seeds", *SWEEP_KEYS)  # of no other command
_MAX_SEEDS = 1000
_DOWNLOAD = "dataset.download=true"
_SOURCE_FLAGS = {"-cd": "--config-dir", "-cp": "--config-path", "-cn": "--config-name"}
_SOURCE_FLAGS |= {flag: flag for flag in _SOURCE_FLAGS.values()}
_LONGEST_WORD = 8192  # Hydra would take minutes to parse a megabyte of brackets
_HYDRA_FLAGS = (
    *("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help"),
    *("--resolve", "--package", "-p"),
)
_PATH_KEYS = (
    *("run", "input", "output", "resume", "data_dir", "output_dir", "model.pretrained", "init.from", "init.adapter"),
    *(f"dataset.{key}" for key in PATH_KEYS),
)


@dataclass
class CommandLine:
    """A parsed command line: flags, words and overrides."""

    overrides: list[str] = field(default_factory=list)  # of the config's own keys
    hydra_overrides: list[str] = field(default_factory=list)  # of Hydra's keys
    trust: list[str] = field(default_factory=list)
    config_dir: Path | None = None
    config_path: Path | None = None
    config_name: str | None = None
    resume: str | None = None
    sweep: dict[str, str] = field(default_factory=dict)  # how a sweep's jobs are run; not part of a run's config
    seeds: str | None = None
    multirun: bool = False
    verbose: bool = False
    help: bool = False
    version: bool = False
    completion: str | None = None  # the shell that a script is asked for
    asked_by_shell: list[str] | None = None  # what that script asks when TAB is pressed
    hydra_flags: list[str] = field(default_factory=list)  # which Hydra answers

    @property
    def is_own(self) -> bool:
        """Whether the user has made the config, or has allowed one that came with a run to reach the network."""
        return self.resume is None or _DOWNLOAD in self.overrides

    def config_source(self, command: str) -> ConfigSource:
        """Where the config of a command is composed from."""
        own = [path for path in (self.config_path, self.config_dir) if path is not None]
        return ConfigSource((*own, conf_directory()), self.config_name or command)


def parse(arguments: Sequence[str], command: str = "train") -> CommandLine:
    """Tell apart the words of a command line.

    Raises:
        ConfigError: a line for each unknown flag or invalid value.
    """
    if arguments and arguments[0] == "--complete":
        return CommandLine(asked_by_shell=[*arguments[1:4]])
    parsed, rest = CommandLine(), list(arguments)
    asks = bool({"-h", "--help"} & set(arguments))
    problems: list[str] = []
    typed: list[str] = []
    while rest:
        argument = rest.pop(0)
        name, sign, value = argument.partition("=")
        if argument in ("-h", "--help"):
            parsed.help = True
        elif argument == "--version":
            parsed.version = True
        elif argument in ("-v", "--verbose"):
            parsed.verbose = True
        elif argument in ("-m", "--multirun") and command == "train":
            parsed.multirun = True
        elif argument == "--completion":
            parsed.completion = rest.pop(0) if rest else ""
        elif asks and not argument.startswith("-"):
            parsed.overrides.append(argument)  # what is asked about
        elif name in _SOURCE_FLAGS:
            problems += _read_source(parsed, _SOURCE_FLAGS[name], value if sign or not rest else rest.pop(0))
        elif name in _HYDRA_FLAGS:
            parsed.hydra_flags.append(argument)
            if rest and not rest[0].startswith("-") and "=" not in rest[0] and name not in ("--resolve", "-sc"):
                parsed.hydra_flags.append(rest.pop(0))
        elif name in _TRAIN_KEYS and command != "train":
            problems.append(f"{name}: no such setting; bigmodel-train takes it")
        elif name == "trust":
            parsed.trust += [item for item in value.strip("[]").split(",") if item]
        elif name == "resume":
            parsed.resume = value
        elif name in SWEEP_KEYS:
            parsed.sweep[name] = value
        elif name == "seeds":
            parsed.seeds, parsed.multirun = value, True
        elif argument.startswith("-"):
            problems.append(f"{argument}: no such flag; see --help")
        else:
            typed.append(argument)
    problems += _undecodable(arguments) if command == "train" and not asks else []
    problems += _read_overrides(parsed, typed)
    problems += [f"{name}: applies to sweeps only; add -m" for name in parsed.sweep if not parsed.multirun]
    problems += _seeds_problems(parsed.seeds, parsed.overrides, parsed.resume) if parsed.seeds is not None else []
    if problems:
        raise ConfigError(*problems)
    return parsed


def describe_repeated_words(arguments: Sequence[str], command: str) -> list[str]:
    """Return a line for each word that is given more than once and of which no plan or start of a run will tell."""
    resumed = any(word.startswith("resume=") for word in arguments)
    words = [word for word in arguments if not word.startswith(("-", "trust="))]  # trust adds up
    told_by_run = command == "train" and not resumed
    return describe_repeated([word for word in words if not told_by_run or word.partition("=")[0] in _TRAIN_KEYS])


def _read_source(parsed: CommandLine, flag: str, value: str) -> list[str]:
    """Note where YAML is looked for; return what is wrong with that."""
    if flag == "--config-name":
        parsed.config_name = value
        return [] if value else [f"{flag}: needs a name"]
    if not value or not Path(value).is_dir():
        return [f"{flag}: there is no directory '{value}'"]
    setattr(parsed, flag[2:].replace("-", "_"), Path(value).resolve())
    return []


def _read_overrides(parsed: CommandLine, typed: Sequence[str]) -> list[str]:
    """Sort overrides, as Hydra's grammar takes them; return a line for each that needs no config to be refused."""
    long = [one for one in typed if len(one) > _LONGEST_WORD]
    for word in (_for_hydra(one) for one in typed if one not in long):
        (parsed.hydra_overrides if is_hydra_key(word) else parsed.overrides).append(word)
    problems = [f"{truncate(one)}: {len(one)} characters; at most {_LONGEST_WORD}" for one in long]
    return problems + ([] if parsed.hydra_flags else check_hydra_keys(parsed.hydra_overrides, parsed.multirun))


def _for_hydra(word: str) -> str:
    """Return an override as Hydra's grammar takes it, quoted where it has to be."""
    key, sign, value = word.partition("=")
    return make_readable(_quote_value(key, value) if sign and key in _PATH_KEYS else word)


def _quote_value(key: str, value: str) -> str:
    """Add Hydra's quotes to a value that can only be a path or a text.

    Commas and brackets of a path still make a sweep; `input` may be a sentence, and cannot be swept.
    """
    is_sentence = key == "input" and value[:1] != "" and not (value[0] in "'\"" and value[-1] == value[0])
    if not is_sentence and (value[:1] in ("'", '"', "$", "[", "") or value == "null" or "," in value):
        return f"{key}={value}"
    return f"{key}={quote(value)}"


def _seeds_problems(count: str, overrides: Sequence[str], resume: str | None) -> list[str]:
    """Return what is wrong with `seeds=<count>` on a command line, a line for each problem."""
    if not (count.isascii() and count.isdecimal() and 2 <= int(count[:9]) <= _MAX_SEEDS):
        return [f"seeds: must be a number from 2 to {_MAX_SEEDS}, as seeds=5: how many seeds to train with"]
    if resume is not None:
        return ["seeds: cannot be added to what is resumed"]
    conflicts = [text for text in overrides if sets_seed(text) and not text.partition("=")[2].isdecimal()]
    return [f"seeds: conflicts with {text}; remove one of the two" for text in conflicts]


def sets_seed(text: str) -> bool:
    """Whether an override sets the seed."""
    return override_key(text) == "seed"


def _undecodable(arguments: Sequence[str]) -> list[str]:
    """Return a line for each word that no path can hold: not text in this locale, or with a null byte."""
    broken = [argument for argument in arguments if any("\ud800" <= letter <= "\udfff" for letter in argument)]
    lines = [f"{ascii(one)[1:-1]}: not text in this locale; set LC_ALL=C.UTF-8, or rename it" for one in broken]
    return lines + [f"{ascii(one)[1:-1]}: holds a null byte; remove it" for one in arguments if "\0" in one]
