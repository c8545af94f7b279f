"""Sweeps whose jobs' template process is forked from one that has torch loaded: as real, but ready sooner."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forks import ForkServerProcess, finished, launch


def sweep(
    *words: str,
    cwd: Path,
    environment: dict[str, str] | None = None,
    output: Path | None = None,
    multirun: bool = True,
) -> ForkServerProcess:
    """`bigmodel-train -m …`, or without -m, as a child; what it says goes to `output`, else to `cwd`/said."""
    cwd.mkdir(exist_ok=True)
    output = output or cwd / "said"
    return launch(
        *(["-m"] if multirun else []), *words, cwd=cwd, output=output, environment=environment, before=_forked_templates
    )


def swept(*words: str, cwd: Path, environment: dict[str, str] | None = None, multirun: bool = True) -> tuple[int, str]:
    """Its exit code and what it said."""
    (cwd / "said").unlink(missing_ok=True)
    code = finished(sweep(*words, cwd=cwd, environment=environment, multirun=multirun))
    return code, (cwd / "said").read_text(encoding="utf-8")


def only_sweep(cwd: Path) -> Path:
    """The one sweep directory under `cwd`/outputs."""
    (found,) = cwd.glob("outputs/sweeps/*")
    return found


def table(said: str) -> list[list[str]]:
    """The rows of the last table: number, overrides, state, best; the time is left out."""
    head = [*re.finditer(r"job +overrides +state +best", said)][-1]
    rows = said[head.end() :].partition("\n\n")[0].splitlines()  # the leaderboard follows
    return [re.split(r"  +", row)[:4] for row in rows if re.match(r"\d+  ", row)]


@dataclass
class _Process:
    """As much of a Popen as `ProcessEngine` uses."""

    pid: int

    def wait(self, seconds: float | None = None) -> int:
        deadline = time.monotonic() + (seconds or 60)
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(found[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _forked_templates() -> None:
    from bigmodel.sweeps.engines.processes import ProcessEngine

    ProcessEngine._launch = _launch
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # plots take seconds, and have tests of their own


def _launch(workers: Any) -> tuple[Any, Any, int]:
    from bigmodel.sweeps.engines import fork_server as template

    held = os.dup(workers._lock_fd)  # the lock's own descriptor closes at a fork
    ours, commands, events, theirs = (*os.pipe(), *os.pipe())
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(ours, 0)
        os.dup2(theirs, 1)
        for descriptor in (ours, commands, events, theirs):
            os.close(descriptor)
        sys.argv = ["template", str(parent)]
        template.main()
        os._exit(0)
    for descriptor in (ours, theirs, held):
        os.close(descriptor)
    return _Process(pid), open(commands, "wb", buffering=0), events
