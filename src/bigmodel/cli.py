"""Console scripts: parse the command line, compose the config, run the command. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bigmodel import __version__
from bigmodel.commands.command_line import CommandLine, parse, reject_undecodable
from bigmodel.commands.exit_codes import is_verbose, run_command
from bigmodel.config.location import conf_directory
from bigmodel.errors import ConfigError, DataError, StorageError
from bigmodel.runtime.live_text import StatusLine
from bigmodel.runtime.signals import StopRequest

if TYPE_CHECKING:
    from bigmodel.config.composition import ConfigSource

_EMPTY_DIRECTORY = "/proc"  # holds no data, and nothing can be created in it
_DOWNLOAD = "dataset.download=true"  # with `resume`: the data may be downloaded again
COMMANDS = ("train", "evaluate", "predict", "export", "compare", "runs", "report", "merge")
CONFIGLESS_COMMANDS = ("compare", "runs", "report", "merge")  # they read run directories, without config or Hydra


def _console_script(command: str) -> Callable[[], NoReturn]:
    """Return the function that an installed `bigmodel-COMMAND` calls."""
    return lambda: sys.exit(_run_guarded(command, sys.argv[1:]))


train = _console_script("train")
evaluate = _console_script("evaluate")
predict = _console_script("predict")
export = _console_script("export")
compare = _console_script("compare")
runs = _console_script("runs")
report = _console_script("report")
merge = _console_script("merge")


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


def _run_guarded(command: str, arguments: Sequence[str]) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # silences torch's profiler; read when torch is loaded
    return run_command(lambda stop: _run_from_any_directory(command, arguments, stop), is_verbose(arguments))


def _run_from_any_directory(command: str, arguments: Sequence[str], stop: StopRequest) -> int:
    """Run a command even if the working directory was removed; then only absolute paths work."""
    was_removed = False
    try:
        os.getcwd()
    except OSError as error:
        was_removed = True
        if not Path(_EMPTY_DIRECTORY).is_dir():
            raise ConfigError("the working directory was removed; change to one that exists") from error
        os.chdir(_EMPTY_DIRECTORY)
    try:
        return _run(command, arguments, stop)
    except (ConfigError, DataError, StorageError) as failure:
        if not was_removed:
            raise
        first, *rest = failure.lines
        raise type(failure)(f"{first}; the working directory was removed, so paths must be absolute", *rest) from None


def _run(command: str, arguments: Sequence[str], stop: StopRequest) -> int:
    if arguments and arguments[0] in ("--completion", "--complete"):
        return _complete(arguments[0], arguments[1:])
    parsed = parse(arguments)
    if parsed.version:
        print(f"bigmodel-train {__version__}")
        return 0
    if parsed.help:
        from bigmodel.commands.help import help_text  # reads YAML, which takes as long as all above

        own = [path for path in (parsed.config_path, parsed.config_dir) if path is not None]
        print(help_text(command, parsed.overrides, own, parsed.config_name))
        return 0
    if command in CONFIGLESS_COMMANDS:
        _import_from_working_directory(parsed.trust)
        _load_command(command)([argument for argument in arguments if argument not in ("-v", "--verbose")])
        return 0
    if parsed.seeds is not None and command != "train":
        raise ConfigError("seeds: no such setting; bigmodel-train takes it")
    if command == "train":
        reject_undecodable(arguments)
    with StatusLine(plain=command == "train") as status:
        status.show("reading config")
        return _run_from_config(command, parsed, stop, status.show)


def _run_from_config(command: str, parsed: CommandLine, stop: StopRequest, report: Callable[[str], object]) -> int:
    from bigmodel.config import composition as compose  # Hydra takes a quarter of a second

    source = config_source(parsed, command)
    if parsed.hydra:
        report("")
        compose.refuse_hydra_keys(source, parsed.overrides, parsed.trust)
        compose.run_hydra_cli(source, [*parsed.hydra, *parsed.overrides], parsed.trust)
        return 0
    if parsed.multirun:
        return _sweep(parsed, source, stop, report)
    if parsed.resume is not None:
        return _resume(parsed, source, stop, report)
    composed = compose.compose(command, parsed.overrides, source, parsed.trust)
    report("loading torch")
    run = _load_command(command)
    if command == "train":
        run(composed, stop, report=report)
    else:
        report("")
        run(composed, stop)
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

    _import_from_working_directory(parsed.trust)
    own = (parsed.config_path, parsed.config_dir, conf_directory())
    return compose.ConfigSource(tuple(path for path in own if path is not None), parsed.config_name or command)


def _import_from_working_directory(trust: Sequence[str]) -> None:
    if trust and os.getcwd() not in (_EMPTY_DIRECTORY, *sys.path):
        sys.path.insert(0, os.getcwd())


def _load_command(command: str) -> Callable[..., object]:
    """Import a command's `run`. Called after its config is valid, because it loads torch."""
    import importlib

    run: Callable[..., object] = importlib.import_module(f"bigmodel.commands.{command}").run
    return run


def _resume(parsed: CommandLine, source: ConfigSource, stop: StopRequest, report: Callable[[str], object]) -> int:
    from bigmodel.commands.resume import load_for_resume

    assert parsed.resume is not None
    directory, stored = load_for_resume(parsed.resume, parsed.overrides, source, parsed.trust)
    report("loading torch")
    run = _load_command("train")
    run(stored, stop, directory, resume=True, own=_DOWNLOAD in parsed.overrides, report=report)
    return 0


def _sweep(parsed: CommandLine, source: ConfigSource, stop: StopRequest, report: Callable[[str], object]) -> int:
    from bigmodel.sweeps.state.settings import parse_sweep_options

    options = parse_sweep_options(parsed.sweep)
    if parsed.resume is None:
        from bigmodel.sweeps.by_hydra import run_hydra_sweep

        chosen = [f"hydra.launcher.{key}={value}" for key, value in options.items()]
        return run_hydra_sweep([*parsed.overrides, *chosen], source, parsed.trust, stop, parsed.seeds, report)
    from bigmodel.sweeps.resume import resume

    report("")
    return resume(parsed.resume, parsed.overrides, options, parsed.trust, stop)
