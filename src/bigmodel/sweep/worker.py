"""One job in a process of its own: its streams, its threads, its GPU; then it is a run like any other."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bigmodel.commands import train
from bigmodel.config import from_yaml
from bigmodel.errors import BigmodelError
from bigmodel.guard import complain, guarded
from bigmodel.signals import Stop
from bigmodel.sweep.gpus import Gpu, take


def work(facts: Mapping[str, Any], number: int) -> int:
    """Train job `number`, from its last checkpoint if it has one. Returns its exit code."""
    jobs = Path(facts["path"]) / "jobs"
    sink = os.open(jobs / f"{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(sink, stream)
    torch.set_num_threads(facts["threads"])  # what `device.threads: null` stands for
    try:
        return guarded(lambda stop: _trained(facts, number, stop), verbose=False)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _trained(facts: Mapping[str, Any], number: int, stop: Stop) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # from here on a signal is answered in order
    sweep = Path(facts["path"])
    directory = sweep / str(number)
    begun = (directory / "config.yaml").is_file()
    if directory.exists() and not begun:  # it was killed before there was anything to go on from
        shutil.rmtree(directory)
    config = from_yaml(directory / "config.yaml" if begun else sweep / "jobs" / f"{number}.yaml", facts["trust"])
    _own_gpu([Gpu(**gpu) for gpu in facts["gpus"]], config.tree["device"])
    try:
        train.run(config, stop, directory, resume=begun)
    except BigmodelError:
        raise
    except Exception as error:  # a bug, ours or a user's model's; the traceback is in the run's train.log
        complain([config.hidden(f"{type(error).__name__}: {error}")])
        return 1
    return 0


def _own_gpu(gpus: list[Gpu], device: Mapping[str, Any]) -> None:
    """Wait for a GPU and see no other; one that the config names by number is waited for."""
    if not gpus or device.get("kind") not in ("auto", "cuda"):
        return
    index = device.get("index")
    if index is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = take(gpus).name
    elif index < len(gpus):
        take([gpus[index]])
