"""Engine of this machine: start, signal and poll the jobs' processes through a fork server. Imports no torch."""

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
from bigmodel.sweeps.engines.job_context import JobContext

MAX_CRASHES = 3  # of the fork server in a row; then the sweep ends
_READ_BYTES = 65536


class ProcessEngine:
    """A fork server and the jobs forked from it. All of them keep the descriptor `lock_fd` open."""

    def __init__(self, lock_fd: int) -> None:
        self._lock_fd = lock_fd
        self._running = set[int]()
        self._context: JobContext | None = None
        self._num_crashes = 0
        self._rest = b""
        self._process, self._commands, self._events = self._launch()

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(self, *_: object) -> None:
        """End the fork server and all jobs at once; jobs that must save have been signalled before."""
        if self._context is None or not self.running_jobs:  # no job needs it; it may still be loading torch
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

    def configure(self, context: JobContext) -> None:
        self._context = context
        self._send({"context": context.to_json()})

    def start(self, number: int) -> None:
        self._running.add(number)
        self._send({"start": number})

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Send signal `number` to those of the jobs that run."""
        self._send({"signal": number, "jobs": [*jobs]})

    def poll(self, timeout_s: float) -> list[JobEnd]:
        """Wait for jobs to end. If the fork server has died, start it again and return its jobs with code None.

        Raises:
            BigmodelError: it has died `MAX_CRASHES` times in a row.
        """
        if not select.select([self._events], [], [], timeout_s)[0]:
            return []
        text = os.read(self._events, _READ_BYTES)
        if not text:
            return self._restart_fork_server()
        self._num_crashes = 0
        *lines, self._rest = (self._rest + text).split(b"\n")
        ended = [JobEnd(event["job"], event["code"]) for event in map(json.loads, lines)]
        self._running -= {end.number for end in ended}
        return ended

    def _restart_fork_server(self) -> list[JobEnd]:
        code = self._process.wait()
        self._num_crashes += 1
        if self._num_crashes >= MAX_CRASHES:
            raise BigmodelError(
                f"the process that starts the jobs has died {MAX_CRASHES} times, last with exit code {code}"
            )
        self._commands.close()
        os.close(self._events)
        lost = [JobEnd(number, None) for number in sorted(self.running_jobs)]
        self._running.clear()
        self._process, self._commands, self._events = self._launch()
        self._rest = b""
        if self._context is not None:
            self.configure(self._context)
        return lost

    def _launch(self) -> tuple[subprocess.Popen[bytes], IO[bytes], int]:
        """Start the fork server. Returns it, the pipe for commands and the descriptor of its events."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bigmodel.sweeps.engines.fork_server", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._lock_fd,),
            start_new_session=True,  # a Ctrl-C reaches the sweep alone, which signals the jobs
            bufsize=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        events = os.dup(process.stdout.fileno())
        process.stdout.close()
        return process, process.stdin, events

    def _send(self, command: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the fork server is dead, which `poll` handles
            self._commands.write(json.dumps(command).encode() + b"\n")
