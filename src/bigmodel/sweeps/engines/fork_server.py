"""Fork server: a process that has torch loaded, computes nothing, and forks the jobs of a sweep.

It reads commands as lines of JSON on stdin and writes a line of JSON for each job that has ended. The kernel kills it
when the sweep's process dies, and kills the jobs when it dies. All of them hold the sweep's lock, so the lock is free
only when the last one has ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from bigmodel.errors import OutOfMemoryError
from bigmodel.runtime.launch import fork_child
from bigmodel.runtime.signals import exit_with_parent
from bigmodel.safe_files import append_to
from bigmodel.sweeps.engines.job_context import JobContext

_READ_BYTES = 65536


def main() -> None:
    """Serve the process whose id is the first argument, until its pipe ends."""
    exit_with_parent(int(sys.argv[1]))
    events = os.dup(1)
    os.dup2(2, 1)  # keeps a library's prints out of the events
    import bigmodel.sweeps.engines.job_process  # noqa: F401 - loads torch and all that every job needs

    _serve(events)


def _serve(events: int) -> None:
    """Fork and signal jobs as commanded, and write their exit codes to the descriptor `events`."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    context = JobContext("")
    running: dict[int, int] = {}  # jobs by process id
    rest = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            for pid, code in _ended_processes():
                _send_event(events, {"job": running.pop(pid), "code": code})
        if 0 in ready:
            text = os.read(0, _READ_BYTES)
            if not text:
                break
            *lines, rest = (rest + text).split(b"\n")
            for command in map(json.loads, lines):
                if "context" in command:
                    context = JobContext.from_json(command["context"])
                    preload(context)
                elif "start" in command:
                    _start(context, command["start"], running, (wake, waker, events), events)
                else:
                    for pid, number in running.items():
                        if number in command["jobs"]:
                            os.kill(pid, command["signal"])
    for pid in running:
        os.kill(pid, signal.SIGKILL)  # for systems whose kernel does not end them


def preload(context: JobContext) -> None:
    """Import the modules that the jobs will need. A module that fails to import fails again in its job, which reports
    it.
    """
    context.apply()
    for name in context.modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the collector would write to, and so copy, the pages that forked jobs share


def _start(
    context: JobContext, number: int, running: dict[int, int], own_descriptors: tuple[int, ...], events: int
) -> None:
    """Fork a job, or report that it cannot be: the others go on, and would not if this process ended."""
    try:
        running[_fork(context, number, own_descriptors)] = number
    except OSError as error:
        with contextlib.suppress(OSError), append_to(context.directory / "jobs" / f"{number}.txt") as file:
            reason = f"no process could be started: {error.strerror or error}"
            file.write(f"error: {reason}; raise the limit of processes (ulimit -u), or lower jobs\n")
        _send_event(events, {"job": number, "code": OutOfMemoryError.exit_code})


def _fork(context: JobContext, number: int, own_descriptors: tuple[int, ...]) -> int:
    """Fork a job, and return its process id. Raises OSError where the system grants no more processes."""
    from bigmodel.sweeps.engines.job_process import run_job

    return fork_child(lambda: run_job(context, number), close=own_descriptors)


def _send_event(events: int, event: Mapping[str, Any]) -> None:
    os.write(events, (json.dumps(event) + "\n").encode())  # one short write, which no other process's can split


def _ended_processes() -> Iterator[tuple[int, int]]:
    """Yield process ids with exit codes, negative for a signal."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])


if __name__ == "__main__":
    main()
