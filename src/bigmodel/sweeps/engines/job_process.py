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
from bigmodel.commands.exit_codes import print_errors, run_command
from bigmodel.config.config import Config
from bigmodel.config.saved import load_config, load_snapshot
from bigmodel.errors import BigmodelError
from bigmodel.runtime.gpus import Gpu, acquire
from bigmodel.runtime.signals import StopRequest
from bigmodel.safe_files import open_own, refuse_foreign_folder


def run_job(facts: Mapping[str, Any], number: int) -> int:
    """Train job `number`, from its last checkpoint if it has one. Returns its exit code."""
    jobs = Path(facts["path"]) / "jobs"
    sink = open_own(jobs / f"{number}.txt")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(sink, stream)
    torch.set_num_threads(facts["threads"])  # what `device.threads: null` stands for
    try:
        return run_command(lambda stop: _trained(facts, number, stop), verbose=False)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _trained(facts: Mapping[str, Any], number: int, stop: StopRequest) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # from here on a signal is answered in order
    start = JobStart(facts, number)
    claim_gpu(facts, start.config)
    return start.train(stop)


class JobStart:
    """What a job's process finds: its config, frozen or, where it was `begun` before, its run's own."""

    def __init__(self, facts: Mapping[str, Any], number: int) -> None:
        sweep = Path(facts["path"])
        self.number, self.directory = number, sweep / str(number)
        refuse_foreign_folder(self.directory)
        self._own = not facts.get("taken_up", True)
        self.is_resume = (self.directory / "config.yaml").is_file()
        if self.directory.exists() and not self.is_resume:  # it was killed before there was anything to go on from
            shutil.rmtree(self.directory)
        own, frozen = self.directory / "config.yaml", sweep / "jobs" / f"{number}.yaml"
        self.config = load_config(own, facts["trust"]) if self.is_resume else load_snapshot(frozen, facts["trust"])

    def train(self, stop: StopRequest) -> int:
        """Train it. Returns 0, or 1 for a bug. Raises as `train.run`."""
        try:
            train.run(self.config, stop, self.directory, self.is_resume, own=self._own)
        except BigmodelError:
            raise
        except Exception as error:  # a bug, ours or a user's model's; the traceback is in the run's train.log
            print_errors([self.config.redact(f"{type(error).__name__}: {error}")])
            return 1
        return 0


def claim_gpu(facts: Mapping[str, Any], config: Config) -> None:
    """Wait for a GPU and see no other; one that the config names by number is waited for."""
    gpus, device = [Gpu(**gpu) for gpu in facts["gpus"]], config.values["device"]
    if not gpus or device.get("kind") not in ("auto", "cuda"):
        return
    index = device.get("index")
    if index is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = acquire(gpus).name
    elif index < len(gpus):
        acquire([gpus[index]])
