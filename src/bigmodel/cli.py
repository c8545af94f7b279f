"""The console scripts: from the words of a command line to a composed config and its command. Imports no torch."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bigmodel import __version__, seed_axis
from bigmodel.conf_directory import conf_directory
from bigmodel.errors import BigmodelError, ConfigError, Interrupted
from bigmodel.help import help_text
from bigmodel.hidden import hidden
from bigmodel.signals import Stop

if TYPE_CHECKING:
    from bigmodel.compose import Source
    from bigmodel.config import Config

VERBS = ("train", "evaluate", "predict", "export", "compare", "runs")
_READERS = ("compare", "runs")  # of what runs left: without config, Hydra or torch
_HYDRA_FLAGS = (
    *("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help"),
    *("--resolve", "--package", "-p"),
)
_PATH_KEYS = (
    *("run", "input", "output", "resume", "data_dir", "output_dir"),
    *("dataset.root", "dataset.file", "model.pretrained"),
)


def train() -> NoReturn:
    """`bigmodel-train`."""
    sys.exit(_guarded("train", sys.argv[1:]))


def evaluate() -> NoReturn:
    """`bigmodel-evaluate`."""
    sys.exit(_guarded("evaluate", sys.argv[1:]))


def predict() -> NoReturn:
    """`bigmodel-predict`."""
    sys.exit(_guarded("predict", sys.argv[1:]))


def export() -> NoReturn:
    """`bigmodel-export`."""
    sys.exit(_guarded("export", sys.argv[1:]))


def compare() -> NoReturn:
    """`bigmodel-compare`."""
    sys.exit(_guarded("compare", sys.argv[1:]))


def runs() -> NoReturn:
    """`bigmodel-runs`."""
    sys.exit(_guarded("runs", sys.argv[1:]))


def main() -> NoReturn:
    """`python -m bigmodel <verb> …`."""
    verb, *words = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help"):
        print(f"Usage: python -m bigmodel {{{','.join(VERBS)}}} ...   (each takes --help)")
        sys.exit(0)
    if verb not in VERBS:
        print(f"{verb}: no such command; choices: {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    sys.exit(_guarded(verb, words))


@dataclass
class Words:
    """A command line, taken apart."""

    overrides: list[str] = field(default_factory=list)
    trust: list[str] = field(default_factory=list)
    config_dir: Path | None = None
    config_path: Path | None = None
    config_name: str | None = None
    resume: str | None = None
    seeds: str | None = None
    multirun: bool = False
    verbose: bool = False
    help: bool = False
    version: bool = False
    hydra: list[str] = field(default_factory=list)  # flags that Hydra answers by itself


def parse(words: Sequence[str]) -> Words:
    """Tell flags from overrides. Raises ConfigError for a flag that is none."""
    parsed, rest = Words(), list(words)
    problems = []
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        if word in ("-h", "--help"):
            parsed.help = True
        elif word == "--version":
            parsed.version = True
        elif word in ("-v", "--verbose"):
            parsed.verbose = True
        elif word in ("-m", "--multirun"):
            parsed.multirun = True
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
            parsed.hydra.append(word)
            if rest and not rest[0].startswith("-") and "=" not in rest[0] and name not in ("--resolve", "-sc"):
                parsed.hydra.append(rest.pop(0))
        elif name == "trust":
            parsed.trust += [item for item in value.strip("[]").split(",") if item]
        elif name == "resume":
            parsed.resume = value
        elif name == "seeds":
            parsed.seeds, parsed.multirun = value, True
        elif word.startswith("-"):
            problems.append(f"{word}: no such flag; see --help")
        else:
            parsed.overrides.append(_quoted(name, value) if sign and name in _PATH_KEYS else word)
    if parsed.seeds is not None:
        problems += seed_axis.problems(parsed.seeds, parsed.overrides, parsed.resume)
    if problems:
        raise ConfigError(*problems)
    return parsed


def _quoted(key: str, path: str) -> str:
    """Spare people Hydra's quoting where a value can only be a path; commas and brackets stay a sweep's."""
    if path[:1] in ("'", '"', "$", "[", "") or path == "null" or "," in path:
        return f"{key}={path}"
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _guarded(verb: str, words: Sequence[str]) -> int:
    """Run a command; every failure becomes plain lines and its exit code."""
    _open_streams()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting
    verbose = bool({"-v", "--verbose"} & set(words)) or os.environ.get("BIGMODEL_TRACEBACK") == "1"
    try:
        return _run(verb, words, Stop().install())
    except Interrupted as stopped:  # on request, so neither an error nor worth a traceback
        print("\n".join(stopped.lines), file=sys.stderr)
        return stopped.exit_code
    except BigmodelError as error:
        if verbose:
            raise
        _complain(error.lines)
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - so that exit does not flush into the pipe
        return 0
    except Exception as error:
        if verbose:
            raise
        _complain(
            [
                f"internal error: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                "this is a bug in bigmodel-train; run again with -v to see where",
            ]
        )
        return 1


def _open_streams() -> None:
    """Where a stream was closed (`>&-`), let it lead nowhere; else the next file opened would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process


def _complain(lines: Sequence[str]) -> None:
    for line in lines:  # what a line quotes may hold control codes, or end it
        line = hidden(line)
        shown = line if line.isprintable() else line.encode("unicode_escape").decode()
        print(f"error: {shown}", file=sys.stderr)


def _run(verb: str, words: Sequence[str], stop: Stop) -> int:
    parsed = parse(words)
    if parsed.version:
        print(f"bigmodel-train {__version__}")
        return 0
    if parsed.help:
        print(help_text(verb, parsed.config_dir))
        return 0
    if verb in _READERS:
        _command(verb)([word for word in words if word not in ("-v", "--verbose")])
        return 0
    if parsed.seeds is not None and verb != "train":
        raise ConfigError("seeds: no such setting; bigmodel-train takes it")
    if verb == "train":
        _refuse_what_is_no_text(words)
    from bigmodel import compose  # Hydra takes a quarter of a second

    if parsed.trust and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    own = (parsed.config_path, parsed.config_dir, conf_directory())
    source = compose.Source(tuple(path for path in own if path is not None), parsed.config_name or verb)
    if parsed.hydra:
        compose.by_hydra(source, [*parsed.hydra, *parsed.overrides])
        return 0
    if parsed.resume is not None:
        return _resume(parsed, source, stop)
    if parsed.multirun:
        return _sweep(parsed, source, stop)
    composed = compose.compose(verb, parsed.overrides, source, parsed.trust)
    _command(verb)(composed, stop)
    return 0


def _refuse_what_is_no_text(words: Sequence[str]) -> None:
    """ConfigError for bytes that this locale cannot read: they could not be written into config.yaml either."""
    broken = [word for word in words if any("\ud800" <= letter <= "\udfff" for letter in word)]
    if broken:
        shown = (ascii(word)[1:-1] for word in broken)
        raise ConfigError(*(f"{word}: not text in this locale; set LC_ALL=C.UTF-8, or rename it" for word in shown))


def _command(verb: str) -> Callable[..., object]:
    """The command's `run`, imported only once its config is known to be right: this is where torch comes in."""
    import importlib

    run: Callable[..., object] = importlib.import_module(f"bigmodel.commands.{verb}").run
    return run


def _resume(parsed: Words, source: Source, stop: Stop) -> int:
    from bigmodel.resume import resumed

    assert parsed.resume is not None
    directory, stored = resumed(parsed.resume, parsed.overrides, source, parsed.trust)
    _command("train")(stored, stop, directory, resume=True)
    return 0


def _sweep(parsed: Words, source: Source, stop: Stop) -> int:
    """A sweep by Hydra's own launcher and sweeper, each job in a run directory of its own; all jobs are tried."""
    from bigmodel import compose

    compose.check_sweep("train", parsed.overrides, source, parsed.trust)
    if parsed.seeds is not None:
        parsed.overrides = seed_axis.with_seeds(parsed.seeds, parsed.overrides, source, parsed.trust)
    os.environ["BIGMODEL_SWEEP"] = secrets.token_hex(2)
    failures: list[tuple[str, int]] = []
    places: list[Path] = []

    def job(composed: Config, directory: Path) -> None:
        places.append(directory.parent)
        try:
            _command("train")(composed, stop, directory)
        except Interrupted as error:
            _complain(error.lines)
            raise SystemExit(error.exit_code) from None
        except BigmodelError as error:
            _complain(error.lines)
            failures.append((directory.name, error.exit_code))
        except Exception as error:  # a bug, ours or a user's model's: the other jobs are worth their results
            _complain([f"job {directory.name}: {type(error).__name__}: {error}"])
            failures.append((directory.name, 1))

    compose.sweep(parsed.overrides, source, parsed.trust, job)
    if places and places[0].is_dir():  # not after a dry run
        from bigmodel.results.leaderboard import leaderboard

        print("", leaderboard(places[0]), sep="\n")
    if failures:
        _complain([f"{len(failures)} jobs failed: {', '.join(name for name, _ in failures)}"])
        return failures[0][1]
    return 0
