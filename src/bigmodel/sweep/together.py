"""Several jobs in one process: each is an ordinary run in a thread of its own, and their updates are made as one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch

from bigmodel import checkpoint
from bigmodel.assembly import Parts, assemble
from bigmodel.durable import append_to
from bigmodel.errors import Interrupted
from bigmodel.guard import coded
from bigmodel.signals import Stop
from bigmodel.sweep.worker import Start, own_gpu
from bigmodel.vectorized.members import Ensemble, Member
from bigmodel.vectorized.shared import Made, SharedData
from bigmodel.vectorized.trial import refusal
from bigmodel.words import first_line


def work(facts: Mapping[str, Any], numbers: Sequence[int], send: Callable[[Mapping[str, Any]], None]) -> int:
    """Train these jobs. `send` is given a job's exit code as soon as it has ended, or why they cannot be one program,
    and then none of them was started.
    """
    jobs = Path(facts["path"]) / "jobs"
    sinks = {number: append_to(jobs / f"{number}.txt", buffering=1) for number in numbers}
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):  # of what a library prints
        os.dup2(sinks[numbers[0]].fileno(), stream)
    routed = _PerThread(sinks[numbers[0]])
    sys.stdout = sys.stderr = routed
    torch.set_num_threads(facts["threads"])
    stop = Stop().install()
    stop.defer()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # from here on a signal is answered in order
    ensemble = Ensemble()
    try:
        starts = [Start(facts, number) for number in numbers]
        own_gpu(facts, starts[0].config)
        parts = _assembled(ensemble, starts)
        why = refusal(parts)
    except Exception as error:  # whichever of them it is, it tells so when it is alone
        why = first_line(error)
    if why:
        send({"apart": why})
        return 0

    def one(start: Start, own: Parts) -> None:
        routed.enter(sinks[start.number])
        code = coded(lambda: _trained(start, own, ensemble, stop), verbose=False)
        send({"job": start.number, "code": code})

    ensemble.turns.run([partial(one, start, own) for start, own in zip(starts, parts, strict=True)])
    return 0


def _trained(start: Start, parts: Parts, ensemble: Ensemble, stop: Stop) -> int:
    if stop():
        raise Interrupted(f"stopped by {stop.name}; nothing was started")
    return start.trained(stop, build_parts=lambda config, fresh: parts, aside=ensemble.turns.aside)


def _assembled(ensemble: Ensemble, starts: Sequence[Start]) -> list[Parts]:
    """All jobs' parts; device and data are shared."""
    parts: list[Parts] = []
    shared: SharedData | None = None
    for start in starts:
        saved = start.begun and bool(checkpoint.steps(start.directory / "checkpoints"))
        like = None if shared is None else replace(parts[0], data=shared.reseeded(int(start.config.tree["seed"])))
        own = assemble(start.config, not saved, like, kind=partial(Member, ensemble))
        if shared is None:
            own.data = shared = SharedData(own.data, own.settings.seed, Made())
        parts.append(own)
    return parts


class _PerThread:
    """A stream that is another file in each thread that has entered one."""

    def __init__(self, otherwise: IO[str]) -> None:
        self._local, self._otherwise = threading.local(), otherwise

    def enter(self, file: IO[str]) -> None:
        self._local.file = file

    def write(self, text: str) -> int:
        return self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    @property
    def _file(self) -> IO[str]:
        file: IO[str] = getattr(self._local, "file", self._otherwise)
        return file
