"""The jobs' processes as the sweep's own process sees them: started, signalled, ended. It imports no torch itself."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Mapping, Set
from typing import IO, Any

from bigmodel.errors import BigmodelError
from bigmodel.sweeps.engines.base import JobEnd

MAX_CRASHES = 3  # of the template, in a row, after which it is not started again


class ProcessEngine:
    """A template process, and the jobs forked from it. `held` is a descriptor that all of them keep open."""

    def __init__(self, held: int) -> None:
        self._running = set[int]()
        self._held, self._facts, self._deaths, self._rest = held, dict[str, Any](), 0, b""
        self._process, self._commands, self._events = self._launch()

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(self, *_: object) -> None:
        """End them all at once; whoever has to save has been signalled before."""
        if not self._facts:  # no job can have started; it may still be loading torch
            self._process.kill()
        if not self.running_jobs:  # it may still be loading torch, for nobody
            self._process.kill()
        with contextlib.suppress(OSError):
            self._commands.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._events)

    @property
    def running_jobs(self) -> Set[int]:
        return self._running

    def configure(self, facts: Mapping[str, Any]) -> None:
        """What every job is told; before the first one starts."""
        self._facts = dict(facts)
        self._send({"facts": self._facts})

    def start(self, number: int) -> None:
        self._running.add(number)
        self._send({"start": number})

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Send a signal to those of the jobs that run."""
        self._send({"signal": number, "jobs": [*jobs]})

    def poll(self, seconds: float) -> list[JobEnd]:
        """Wait at most so long for jobs to end. Those that died with the template, which is then started again, are to
        be started again.

        Raises:
            BigmodelError: it has died several times in a row.
        """
        if not select.select([self._events], [], [], seconds)[0]:
            return []
        text = os.read(self._events, 65536)
        if not text:
            return self._restart_fork_server()
        self._deaths = 0
        *lines, self._rest = (self._rest + text).split(b"\n")
        ended = [JobEnd(event["job"], event["code"]) for event in map(json.loads, lines)]
        self._running -= {end.number for end in ended}
        return ended

    def _restart_fork_server(self) -> list[JobEnd]:
        code = self._process.wait()
        self._deaths += 1
        if self._deaths >= MAX_CRASHES:
            raise BigmodelError(
                f"the process that starts the jobs has died {MAX_CRASHES} times, last with exit code {code}"
            )
        self._commands.close()
        os.close(self._events)
        lost = [JobEnd(number, None) for number in sorted(self.running_jobs)]
        self._running.clear()
        self._process, self._commands, self._events = self._launch()
        self._rest = b""
        self._send({"facts": self._facts})
        return lost

    def _launch(self) -> tuple[subprocess.Popen[bytes], IO[bytes], int]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bigmodel.sweeps.engines.fork_server", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._held,),
            start_new_session=True,  # a Ctrl-C reaches the sweep alone, which passes it on
            bufsize=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        events = os.dup(process.stdout.fileno())
        process.stdout.close()
        return process, process.stdin, events

    def _send(self, command: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is dead, which `ended` will tell
            self._commands.write(json.dumps(command).encode() + b"\n")
