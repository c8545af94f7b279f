"""A job that an engine starts on whatever machine it has: a process of its own there, and a file of how it ended.

    jobs/3.start.json   the token of the start that counts, and what the engine calls it
    jobs/3.end.json     that token, and the exit code, negative for a signal

The process that the engine started stays beside the job and computes nothing: it passes on that the job is to stop, and
tells its end where the job cannot, as after a kill. A start whose token is not the last does nothing: an engine that
was asked twice, since nobody could tell whether it had heard, runs the job once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bigmodel
from bigmodel.redaction import redact_arguments
from bigmodel.runs.tolerant_json import read_json_or_empty
from bigmodel.safe_files import open_own, write_json

_LOOK_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StartRecords:
    """Which start of each job counts, and how it ended. Each file is whole whenever it is read."""

    def __init__(self, sweep: Path) -> None:
        self._jobs = sweep / "jobs"

    def begin(self, number: int, token: str, **about: Any) -> None:
        write_json(self._jobs / f"{number}.start.json", {"token": token, **about})

    def last(self, number: int) -> dict[str, Any]:
        """What `begin` noted; empty if the job was never started."""
        return read_json_or_empty(self._jobs / f"{number}.start.json")

    def end(self, number: int, token: str, code: int) -> None:
        write_json(self._jobs / f"{number}.end.json", {"token": token, "code": code})

    def forget_end(self, number: int) -> None:
        (self._jobs / f"{number}.end.json").unlink(missing_ok=True)

    def code(self, number: int, token: str) -> int | None:
        """The exit code of this start, None while it has not ended."""
        ended = read_json_or_empty(self._jobs / f"{number}.end.json")
        return ended["code"] if ended.get("token") == token and isinstance(ended.get("code"), int) else None


class RemoteJob:
    """One start of a job. It is pickled by the engine, called on the other machine, and returns when the job ends."""

    def __init__(self, facts: Mapping[str, Any], number: int, token: str) -> None:
        self.facts, self.number, self.token = facts, number, token
        self.stop = False
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def __call__(self) -> None:
        starts = self._starts()
        if starts.last(self.number).get("token") != self.token:
            return
        starts.forget_end(self.number)  # of this same start, which was queued again after it
        self._process = _process(self.facts, self.number)
        try:
            code = self._watched(self._process)
        except BaseException:  # the engine's own, from a signal's handler
            self._process.kill()
            raise
        starts.end(self.number, self.token, code)

    def request_stop(self, *_: object) -> None:
        """Have the job save and end; a handler for the engine's signal."""
        self.stop = True

    def _starts(self) -> StartRecords:
        return StartRecords(Path(self.facts["cwd"], self.facts["path"]))

    def _watched(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit code, once it has ended."""
        while (code := process.poll()) is None:
            if self.stop and not self._told:
                self._told = True  # once: a second signal would end it unsaved
                process.terminate()
            time.sleep(_LOOK_S)
        return code


def remote_context(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a job needs to know besides, on a machine that shares the files but not this process's surroundings."""
    own = {name: value for name, value in os.environ.items() if name.startswith("BIGMODEL_")}
    return {**facts, "command": redact_arguments(sys.argv), "cwd": os.getcwd(), "environment": own}


def main() -> None:
    """The job's process: told on stdin what to do, it dies with the process whose number is the first argument."""
    from bigmodel.sweeps.engines.fork_server import exit_with_parent

    exit_with_parent(int(sys.argv[1]))
    told = json.loads(sys.stdin.buffer.read())
    facts = told["facts"]
    sys.argv, sys.path[:] = facts["command"], facts["imports"]
    code = 1
    try:
        from bigmodel.sweeps.engines.job_process import run_job  # and with it torch

        code = run_job(facts, told["number"])
    except Exception as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _process(facts: Mapping[str, Any], number: int) -> subprocess.Popen[bytes]:
    where = Path(facts["cwd"])
    path = os.pathsep.join([str(Path(bigmodel.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    sink = open_own(where / facts["path"] / "jobs" / f"{number}.txt")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # till the job is ready to be stopped in order
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bigmodel.sweeps.engines.remote_job", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            cwd=where,
            env=os.environ | facts["environment"] | {"PYTHONPATH": path},
            start_new_session=True,  # a signal to the engine's processes reaches it through `RemoteJob` alone
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(sink)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps({"facts": dict(facts), "number": number}).encode())
    return process


if __name__ == "__main__":
    main()
