"""Console scripts: parse the command line, compose the config, run the command. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bigmodel import __version__
from bigmodel.commands.exit_codes import run_command
from bigmodel.commands.help import help_text
from bigmodel.config.location import conf_directory
from bigmodel.errors import ConfigError, DataError, StorageError
from bigmodel.quoting import make_readable, quote
from bigmodel.runtime.signals import StopRequest
from bigmodel.sweeps import seed_axis

if TYPE_CHECKING:
    from bigmodel.config.composition import ConfigSource

_EMPTY_DIRECTORY = "/proc"  # holds no data, and nothing can be created in it
_DOWNLOAD = "dataset.download=true"  # with `resume`: the data may be downloaded again
SWEEP_KEYS = ("jobs", "on_failure")
COMMANDS = ("train", "evaluate", "predict", "export", "compare", "runs")
CONFIGLESS_COMMANDS = ("compare", "runs")  # they read run directories, without config, Hydra or torch
_HYDRA_FLAGS = (
    *("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help"),
    *("--resolve", "--package", "-p"),
)
_PATH_KEYS = (
    *("run", "input", "output", "resume", "data_dir", "output_dir"),
    *("dataset.root", "dataset.file", "dataset.path", "model.pretrained", "init.from"),
)


def train() -> NoReturn:
    """`bigmodel-train`."""
    sys.exit(_run_guarded("train", sys.argv[1:]))


def evaluate() -> NoReturn:
    """`bigmodel-evaluate`."""
    sys.exit(_run_guarded("evaluate", sys.argv[1:]))


def predict() -> NoReturn:
    """`bigmodel-predict`."""
    sys.exit(_run_guarded("predict", sys.argv[1:]))


def export() -> NoReturn:
    """`bigmodel-export`."""
    sys.exit(_run_guarded("export", sys.argv[1:]))


def compare() -> NoReturn:
    """`bigmodel-compare`."""
    sys.exit(_run_guarded("compare", sys.argv[1:]))


def runs() -> NoReturn:
    """`bigmodel-runs`."""
    sys.exit(_run_guarded("runs", sys.argv[1:]))


def main() -> NoReturn:
    """`python -m bigmodel COMMAND ...`."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(f"Usage: python -m bigmodel {{{','.join(COMMANDS)}}} ...   (each takes --help)")
        sys.exit(0)
    if command not in COMMANDS:
        print(f"{command}: no such command; choices: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    sys.exit(_run_guarded(command, arguments))


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
        problems += seed_axis.check_seeds(parsed.seeds, parsed.overrides, parsed.resume)
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


def _run_guarded(command: str, arguments: Sequence[str]) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # silences torch's profiler; read when torch is loaded
    verbose = bool({"-v", "--verbose"} & set(arguments)) or os.environ.get("BIGMODEL_TRACEBACK") == "1"
    return run_command(lambda stop: _run_from_any_directory(command, arguments, stop), verbose)


def _run_from_any_directory(command: str, arguments: Sequence[str], stop: StopRequest) -> int:
    """Run a command even if the working directory was removed; then only absolute paths work."""
    try:
        os.getcwd()
    except OSError as error:
        if not Path(_EMPTY_DIRECTORY).is_dir():
            raise ConfigError("the working directory was removed; change to one that exists") from error
        os.chdir(_EMPTY_DIRECTORY)
        try:
            return _run(command, arguments, stop)
        except (ConfigError, DataError, StorageError) as failure:
            first, *rest = failure.lines
            raise type(failure)(
                f"{first}; the working directory was removed, so paths must be absolute", *rest
            ) from None
    return _run(command, arguments, stop)


def _run(command: str, arguments: Sequence[str], stop: StopRequest) -> int:
    if arguments and arguments[0] in ("--completion", "--complete"):
        return _complete(arguments[0], arguments[1:])
    parsed = parse(arguments)
    if parsed.version:
        print(f"bigmodel-train {__version__}")
        return 0
    if parsed.help:
        own = [path for path in (parsed.config_path, parsed.config_dir) if path is not None]
        print(help_text(command, parsed.overrides, own, parsed.config_name))
        return 0
    if command in CONFIGLESS_COMMANDS:
        _load_command(command)([argument for argument in arguments if argument not in ("-v", "--verbose")])
        return 0
    if parsed.seeds is not None and command != "train":
        raise ConfigError("seeds: no such setting; bigmodel-train takes it")
    if command == "train":
        reject_undecodable(arguments)
    from bigmodel.config import composition as compose  # Hydra takes a quarter of a second

    source = config_source(parsed, command)
    if parsed.hydra:
        compose.refuse_hydra_keys(source, parsed.overrides, parsed.trust)
        compose.run_hydra_cli(source, [*parsed.hydra, *parsed.overrides], parsed.trust)
        return 0
    if parsed.multirun:
        return _sweep(parsed, source, stop)
    if parsed.resume is not None:
        return _resume(parsed, source, stop)
    composed = compose.compose(command, parsed.overrides, source, parsed.trust)
    _load_command(command)(composed, stop)
    return 0


def _complete(flag: str, words: Sequence[str]) -> int:
    """Print the script that makes a shell complete these commands, or with `--complete` what that script asks for."""
    from bigmodel.commands.completion.answer import answer
    from bigmodel.commands.completion.script import completion_script

    shell = words[0] if words else ""
    if flag == "--completion":
        print(completion_script(shell, [f"bigmodel-{name}" for name in COMMANDS]), end="")
    else:
        for line in answer(shell, *words[1:3]):
            print(line)
    return 0


def config_source(parsed: CommandLine, command: str) -> ConfigSource:
    """Return where the config of a command is composed from. Trusted packages may lie in the working directory."""
    from bigmodel.config import composition as compose

    if parsed.trust and os.getcwd() not in (_EMPTY_DIRECTORY, *sys.path):
        sys.path.insert(0, os.getcwd())
    own = (parsed.config_path, parsed.config_dir, conf_directory())
    return compose.ConfigSource(tuple(path for path in own if path is not None), parsed.config_name or command)


def reject_undecodable(arguments: Sequence[str]) -> None:
    """Raise ConfigError for bytes that this locale cannot decode, and so could not write into config.yaml."""
    broken = [argument for argument in arguments if any("\ud800" <= letter <= "\udfff" for letter in argument)]
    if broken:
        shown = (ascii(argument)[1:-1] for argument in broken)
        raise ConfigError(
            *(f"{argument}: not text in this locale; set LC_ALL=C.UTF-8, or rename it" for argument in shown)
        )


def _load_command(command: str) -> Callable[..., object]:
    """Import a command's `run`. Called after its config is valid, because it loads torch."""
    import importlib

    run: Callable[..., object] = importlib.import_module(f"bigmodel.commands.{command}").run
    return run


def _resume(parsed: CommandLine, source: ConfigSource, stop: StopRequest) -> int:
    from bigmodel.commands.resume import load_for_resume

    assert parsed.resume is not None
    directory, stored = load_for_resume(parsed.resume, parsed.overrides, source, parsed.trust)
    _load_command("train")(stored, stop, directory, resume=True, own=_DOWNLOAD in parsed.overrides)
    return 0


def _sweep(parsed: CommandLine, source: ConfigSource, stop: StopRequest) -> int:
    from bigmodel.sweeps.state.settings import parse_sweep_options

    if parsed.resume is None:
        from bigmodel.sweeps.by_hydra import run_hydra_sweep

        chosen = [f"hydra.launcher.{key}={value}" for key, value in parse_sweep_options(parsed.sweep).items()]
        return run_hydra_sweep([*parsed.overrides, *chosen], source, parsed.trust, stop, parsed.seeds)
    from bigmodel.sweeps.resume import resume

    return resume(parsed.resume, parsed.overrides, parse_sweep_options(parsed.sweep), parsed.trust, stop)
