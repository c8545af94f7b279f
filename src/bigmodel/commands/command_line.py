"""A command line as it was typed: flags, the words that no config has, and overrides. Imports no Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bigmodel.errors import ConfigError
from bigmodel.quoting import make_readable, quote

SWEEP_KEYS = ("jobs", "on_failure")
_MAX_SEEDS = 1000
_HYDRA_FLAGS = (
    *("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help"),
    *("--resolve", "--package", "-p"),
)
_PATH_KEYS = (
    *("run", "input", "output", "resume", "data_dir", "output_dir"),
    *("dataset.root", "dataset.file", "dataset.path", "model.pretrained", "init.from"),
)


@dataclass
class CommandLine:
    """A parsed command line."""

    overrides: list[str] = field(default_factory=list)
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
    hydra: list[str] = field(default_factory=list)  # flags that are passed to Hydra


def parse(arguments: Sequence[str]) -> CommandLine:
    """Separate flags from overrides.

    Raises:
        ConfigError: a line for each unknown flag or invalid value.
    """
    parsed, rest = CommandLine(), list(arguments)
    asks = bool({"-h", "--help"} & set(arguments))
    problems = []
    while rest:
        argument = rest.pop(0)
        name, sign, value = argument.partition("=")
        if argument in ("-h", "--help"):
            parsed.help = True
        elif argument == "--version":
            parsed.version = True
        elif argument in ("-v", "--verbose"):
            parsed.verbose = True
        elif argument in ("-m", "--multirun"):
            parsed.multirun = True
        elif asks and not argument.startswith("-"):
            parsed.overrides.append(argument)  # what is asked about
        elif name in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"):
            if not sign:
                value = rest.pop(0) if rest else ""
            long = {"-cd": "--config-dir", "-cp": "--config-path", "-cn": "--config-name"}.get(name, name)
            if long == "--config-name" and value:
                parsed.config_name = value
            elif long == "--config-name":
                problems.append(f"{long}: needs a name")
            elif not value or not Path(value).is_dir():
                problems.append(f"{long}: there is no directory '{value}'")
            else:
                setattr(parsed, long[2:].replace("-", "_"), Path(value).resolve())
        elif name in _HYDRA_FLAGS:
            parsed.hydra.append(argument)
            if rest and not rest[0].startswith("-") and "=" not in rest[0] and name not in ("--resolve", "-sc"):
                parsed.hydra.append(rest.pop(0))
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
            parsed.overrides.append(
                make_readable(_quote_value(name, value) if sign and name in _PATH_KEYS else argument)
            )
    if not parsed.multirun:
        problems += [f"{name}: applies to sweeps only; add -m" for name in parsed.sweep]
    if parsed.seeds is not None:
        problems += _seeds_problems(parsed.seeds, parsed.overrides, parsed.resume)
    if problems:
        raise ConfigError(*problems)
    return parsed


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
    return text.lstrip("+").partition("=")[0] == "seed"


def reject_undecodable(arguments: Sequence[str]) -> None:
    """Raise ConfigError for bytes that this locale cannot decode, and so could not write into config.yaml."""
    broken = [argument for argument in arguments if any("\ud800" <= letter <= "\udfff" for letter in argument)]
    if broken:
        shown = (ascii(argument)[1:-1] for argument in broken)
        raise ConfigError(
            *(f"{argument}: not text in this locale; set LC_ALL=C.UTF-8, or rename it" for argument in shown)
        )
