"""Console scripts: parse the command line, compose the config, run the command. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bigmodel import __version__
from bigmodel.commands.command_line import CommandLine, describe_repeated_words, parse
from bigmodel.commands.exit_codes import is_verbose, run_command
from bigmodel.errors import ConfigError, DataError, StorageError
from bigmodel.runtime.live_text import StatusLine
from bigmodel.runtime.signals import StopRequest

if TYPE_CHECKING:
    from bigmodel.config.location import ConfigSource

_EMPTY_DIRECTORY = "/proc"  # holds no data, and nothing can be created in it
COMMANDS = ("train", "evaluate", "predict", "export", "compare", "runs", "report", "merge", "share")
CONFIGLESS_COMMANDS = ("compare", "runs", "report", "merge", "share")  # they read runs, without config or Hydra


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
share = _console_script("share")


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
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # what it would say of a lost rank is said in our words
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
    line = parse(arguments, command)
    import_from_working_directory(line.trust)
    if line.version:
        print(f"bigmodel-train {__version__}")
    elif line.completion is not None:
        from bigmodel.commands.completion.script import completion_script

        print(completion_script(line.completion, [f"bigmodel-{name}" for name in COMMANDS]), end="")
    elif line.asked_by_shell is not None:
        from bigmodel.commands.completion.answer import answer

        for candidate in answer(*line.asked_by_shell):
            print(candidate)
    elif line.help:
        from bigmodel.commands.help import help_text  # reads YAML, which takes as long as all above

        print(help_text(command, line.overrides, line.config_source(command)))
    else:
        for text in describe_repeated_words(arguments, command):
            print(f"note: {text}", file=sys.stderr)
        return _run_command(command, line, arguments, stop)
    return 0


def _run_command(command: str, line: CommandLine, arguments: Sequence[str], stop: StopRequest) -> int:
    if command in CONFIGLESS_COMMANDS:
        _load_command(command)([argument for argument in arguments if argument not in ("-v", "--verbose")])
    else:
        with StatusLine(plain=command == "train") as status:
            status.show("reading config")
            return _run_from_config(command, line, stop, status.show)
    return 0


def _run_from_config(command: str, line: CommandLine, stop: StopRequest, report: Callable[[str], object]) -> int:
    from bigmodel.config.composition import answer_by_hydra, compose  # Hydra takes a quarter of a second

    source = line.config_source(command)
    if line.hydra_flags:
        report("")
        answer_by_hydra(line.hydra_flags, [*line.overrides, *line.hydra_overrides], source, line.trust)
        return 0
    if line.multirun:
        return _sweep(line, source, stop, report)
    directory = None
    if line.resume is not None:
        from bigmodel.commands.resume import load_for_resume

        directory, config = load_for_resume(line.resume, line.overrides, source, line.trust)
    else:
        config = compose(command, line.overrides, source, line.trust)
    report("loading torch")
    run = _load_command(command)
    if command == "train":
        run(config, stop, directory, resume=directory is not None, own=line.is_own, report=report)
    else:
        run(config, stop, report)
    return 0


def _sweep(line: CommandLine, source: ConfigSource, stop: StopRequest, report: Callable[[str], object]) -> int:
    from bigmodel.sweeps.state.settings import parse_sweep_options

    options = parse_sweep_options(line.sweep)
    if line.resume is None:
        from bigmodel.sweeps.by_hydra import run_hydra_sweep

        hydra_words = [*line.hydra_overrides, *(f"hydra.launcher.{key}={value}" for key, value in options.items())]
        return run_hydra_sweep(line.overrides, hydra_words, source, line.trust, stop, line.seeds, report)
    from bigmodel.sweeps.resume import resume

    report("")
    return resume(line.resume, [*line.overrides, *line.hydra_overrides], options, line.trust, stop)


def import_from_working_directory(trust: Sequence[str]) -> None:
    """Let trusted packages lie in the working directory."""
    if trust and os.getcwd() not in (_EMPTY_DIRECTORY, *sys.path):
        sys.path.insert(0, os.getcwd())


def _load_command(command: str) -> Callable[..., object]:
    """Import a command's `run`. Called after its config is valid, because it loads torch."""
    import importlib

    run: Callable[..., object] = importlib.import_module(f"bigmodel.commands.{command}").run
    return run
