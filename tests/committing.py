"""One whole save in a process of its own, to be traced, refused or killed. Imports no pytest: forking is fast."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigmodel.runs import checkpoint, tensor_files
from forks import _server

FAIL_POINTS = ((os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (tensor_files, "save_file"))


def tensors(value: int) -> dict[str, dict[str, Tensor]]:
    """Three files; every bit of them follows from `value`."""
    weight = torch.arange(600.0).view(20, 30) + value
    model = {"weight": weight, "tied": weight, "bias": torch.full((30,), value / 3)}
    return {"model": model, "optimizer": {"0.0.momentum": weight * 0.1}, "ema": {"weight": weight - 0.5}}


def state(step: int, best: int) -> dict[str, Any]:
    """What a job's state says, as far as a save looks at it."""
    return {"step": step, "best": {"step": best, "value": best / 10, "since": 0}, "value": step / 3}


def save(root: Path, step: int, value: int, best: int, keep: int = 2) -> Path:
    """`checkpoint.commit`, pointing at these weights as the best if `best` is this step."""
    return checkpoint.commit(root, step, tensors(value), state(step, best), keep)


def launch(
    root: Path, step: int, value: int, best: int, before: Callable[[], object] | None = None
) -> ForkServerProcess:
    """`save` in a child; its exit code is 0, or the number of the OSError, or 99 for anything else.

    `before` is called just before the save (`arm`, `record`); without it the child stops itself there, until SIGCONT.
    """
    process = _server.Process(target=_child, args=(root, step, value, best, before), daemon=False)
    process.start()
    return process


def _child(root: Path, step: int, value: int, best: int, before: Callable[[], object] | None) -> None:
    warm = root.with_name(f"{root.name}-warm")
    save(warm, 1, 1, 1)  # so that no import falls into the save that is looked at
    shutil.rmtree(warm)
    if before is None:
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        before()
    code = 99
    try:
        save(root, step, value, best)
        code = 0
    except OSError as error:
        code = error.errno or 98
    finally:
        os._exit(code)


def arm(call: int, number: int) -> None:
    """Have the n-th call of any of FAIL_POINTS in this process raise that OSError, or kill it if `number` is 0."""
    calls = itertools.count()  # one after the other, whichever thread asks

    def strike(_: str) -> None:
        if next(calls) == call:
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(number, os.strerror(number))

    _guard(strike)


def record(file: Path) -> None:
    """Have the name of every fail point that this process passes written to a file, a line each."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _guard(lambda name: os.write(descriptor, f"{name}\n".encode()))


def _guard(before: Callable[[str], object]) -> None:
    """Have `before` called with the name of each fail point that is reached."""

    def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*arguments: Any, **named: Any) -> Any:
            before(name)
            return function(*arguments, **named)

        return guard

    for owner, name in FAIL_POINTS:
        setattr(owner, name, guarded(name, getattr(owner, name)))
