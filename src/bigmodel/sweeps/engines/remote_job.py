"""Run one sweep job on a remote machine (Slurm, Ray) in a subprocess, and record its exit code in a file.

    jobs/3.start.json   the token of the latest start, and the engine's id for it
    jobs/3.end.json     that token, and the exit code, negative for a signal

The process that the engine started stays next to the job and computes nothing: it passes a stop request on, and records
the exit code where the job cannot, as after a kill. A start with an older token does nothing, so that an engine that is
asked twice, because nobody knows whether the first request arrived, runs the job once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bigmodel
from bigmodel.runs.tolerant_json import read_json_or_empty
from bigmodel.runtime.signals import STOP_SIGNALS
from bigmodel.safe_files import open_own, write_json
from bigmodel.sweeps.engines.job_context import JobContext

_POLL_S = 0.1


class StartRecords:
    """Files with the latest start of each job and how that ended. Each is replaced whole, never half written."""

    def __init__(self, sweep: Path) -> None:
        self._jobs = sweep / "jobs"

    def begin(self, number: int, token: str, **fields: Any) -> None:
        """Record a start, which makes all earlier ones void."""
        write_json(self._jobs / f"{number}.start.json", {"token": token, **fields})

    def last(self, number: int) -> dict[str, Any]:
        """Return what `begin` recorded; empty if the job was never started."""
        return read_json_or_empty(self._jobs / f"{number}.start.json")

    def end(self, number: int, token: str, code: int) -> None:
        """Record the exit code of a start."""
        write_json(self._jobs / f"{number}.end.json", {"token": token, "code": code})

    def forget_end(self, number: int) -> None:
        (self._jobs / f"{number}.end.json").unlink(missing_ok=True)

    def code(self, number: int, token: str) -> int | None:
        """Return the exit code of this start, or None while it has not ended."""
        ended = read_json_or_empty(self._jobs / f"{number}.end.json")
        return ended["code"] if ended.get("token") == token and isinstance(ended.get("code"), int) else None


class RemoteJob:
    """One start of a job: pickled by the engine, called on the other machine; the call returns when the job ends."""

    def __init__(self, context: JobContext, number: int, token: str) -> None:
        self.context = context
        self.number = number
        self.token = token
        self.stop = False
        self._process: subprocess.Popen[bytes] | None = None
        self._is_signalled = False

    def __call__(self) -> None:
        starts = self._starts()
        if starts.last(self.number).get("token") != self.token:
            return
        starts.forget_end(self.number)  # the scheduler may have queued this same start again after it ended
        self._process = _start_process(self.context, self.number)
        try:
            code = self._wait(self._process)
        except BaseException:  # the engine's own, raised in a signal handler
            self._process.kill()
            raise
        starts.end(self.number, self.token, code)

    def request_stop(self, *_: object) -> None:
        """Ask the job to save and end. Serves as a signal handler."""
        self.stop = True

    def _starts(self) -> StartRecords:
        return StartRecords(self.context.directory)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the job, pass a stop request on, and return the exit code."""
        while (code := process.poll()) is None:
            if self.stop and not self._is_signalled:
                self._is_signalled = True  # a second signal would end the job unsaved
                process.terminate()
            time.sleep(_POLL_S)
        return code


def main() -> None:
    """Run a job as given on stdin; the first argument is the id of the process to die with."""
    from bigmodel.runtime.signals import exit_with_parent

    exit_with_parent(int(sys.argv[1]))
    given = json.loads(sys.stdin.buffer.read())
    context = JobContext.from_json(given["context"])
    context.apply()
    code = 1
    try:
        from bigmodel.sweeps.engines.job_process import run_job  # loads torch

        code = run_job(context, given["number"])
    except Exception as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _start_process(context: JobContext, number: int) -> subprocess.Popen[bytes]:
    package = str(Path(bigmodel.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    log = open_own(context.directory / "jobs" / f"{number}.txt")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the job has its signal handlers
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bigmodel.sweeps.engines.remote_job", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=context.cwd,
            env={**os.environ, **context.environment, "PYTHONPATH": path},
            start_new_session=True,  # a signal to the engine's processes reaches the job through `RemoteJob` alone
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(log)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps({"context": context.to_json(), "number": number}).encode())
    return process


if __name__ == "__main__":
    main()
