"""The process that jobs are forked from: torch is loaded in it once, and it computes nothing itself.

It reads lines of JSON, what to start and what to signal, and answers with a line for each job that has ended. It
dies with the process that started it, and the jobs die with it, by the kernel's hand; they all hold the sweep's lock,
so it is free only when the last of them has gone.
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

from bigmodel.runtime.signals import exit_with_parent

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def main() -> None:
    """Serve the process whose number is the first argument, until its pipe ends."""
    exit_with_parent(int(sys.argv[1]))
    events = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no event
    import bigmodel.sweeps.engines.job_process  # noqa: F401 - and with it torch and all that every job needs

    _serve(events)


def _serve(events: int) -> None:
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    facts: dict[str, Any] = {}
    running: dict[int, int] = {}  # jobs by process number
    rest = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            for pid, code in _ended():
                _send_event(events, {"job": running.pop(pid), "code": code})
        if 0 in ready:
            text = os.read(0, 65536)
            if not text:
                break
            *lines, rest = (rest + text).split(b"\n")
            for command in map(json.loads, lines):
                if "facts" in command:
                    facts = command["facts"]
                    preload(facts)
                elif "start" in command:
                    running[_fork(facts, command["start"], (wake, waker, events))] = command["start"]
                else:
                    for pid, number in running.items():
                        if number in command["jobs"]:
                            os.kill(pid, command["signal"])
    for pid in running:
        os.kill(pid, signal.SIGKILL)  # where the kernel does not do it


def preload(facts: dict[str, Any]) -> None:
    """Import what the jobs will, so that each need not; a module that cannot be imported is theirs to tell."""
    sys.argv, sys.path[:] = facts["command"], facts["imports"]
    for name in facts["modules"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, the pages that the children share


def _fork(facts: dict[str, Any], number: int, ours: tuple[int, ...]) -> int:
    from bigmodel.sweeps.engines import job_process as worker

    me = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # till the child is ready to be stopped in order
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            exit_with_parent(me)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in ours:
                os.close(descriptor)
            code = worker.run_job(facts, number)
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _send_event(events: int, event: Mapping[str, Any]) -> None:
    os.write(events, (json.dumps(event) + "\n").encode())  # short enough that two processes' lines never mix


def _ended() -> Iterator[tuple[int, int]]:
    """Process numbers and exit codes, negative for a signal."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])


if __name__ == "__main__":
    main()
