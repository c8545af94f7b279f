"""One job in a process of its own: redirect its streams, set its threads, claim its GPU, then train as any run."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from bigmodel.commands import train
from bigmodel.commands.exit_codes import print_errors, run_command
from bigmodel.config.config import Config
from bigmodel.config.saved import load_config, load_snapshot
from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.runtime.gpus import acquire
from bigmodel.runtime.signals import StopRequest
from bigmodel.safe_files import open_own, refuse_foreign_folder
from bigmodel.sweeps.engines.job_context import JobContext
from bigmodel.sweeps.engines.options import rank_count


def run_job(context: JobContext, number: int) -> int:
    """Train job `number`, from its last checkpoint if it has one. Returns its exit code."""
    log = open_own(Path(context.path) / "jobs" / f"{number}.txt")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(log, stream)
    torch.set_num_threads(context.threads)  # `device.threads: null` keeps this number
    try:
        return run_command(lambda stop: _train(context, number, stop), verbose=False)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def load_job(context: JobContext, number: int) -> tuple[Path, Config, bool]:
    """Return a job's run directory, its config, and whether it resumes a run.

    The config is the run's own if it has one, else the sweep's snapshot. A directory without a config is removed: its
    job was killed before it had anything to resume from.

    Raises:
        ConfigError: the config was altered, or is no longer valid.
        OSError: the run directory is a link.
    """
    sweep = Path(context.path)
    directory = sweep / str(number)
    refuse_foreign_folder(directory)
    if (directory / "config.yaml").is_file():
        return directory, load_config(directory / "config.yaml", context.trust), True
    if directory.exists():
        shutil.rmtree(directory)
    return directory, load_snapshot(sweep / "jobs" / f"{number}.yaml", context.trust), False


def _train(context: JobContext, number: int, stop: StopRequest) -> int:
    """Train a job. Returns 0, or 1 for a bug. Raises as `train.run`."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # `run_command` has installed the handlers
    directory, config, is_resume = load_job(context, number)
    _claim_gpu(context, config)
    try:
        train.run(config, stop, directory, is_resume, own=not context.is_resumed)
    except (BigmodelError, OSError):
        raise
    except Exception as error:  # a bug of ours, or in a user's model; the traceback is in the run's train.log
        print_errors([config.redact(f"{type(error).__name__}: {error}")])
        return 1
    return 0


def _claim_gpu(context: JobContext, config: Config) -> None:
    """Wait for free GPUs, one for each rank, and hide the others, or wait for the one that the config names by index.

    Raises:
        ConfigError: the jobs share fewer GPUs than this one needs.
    """
    gpus, device = context.gpus, config.values["device"]
    if not gpus or device.get("kind") not in ("auto", "cuda"):
        return
    index, count = device.get("index"), rank_count(device)
    if count > len(gpus):
        raise ConfigError(f"device.count: {count} ranks need a GPU each, and the jobs share {len(gpus)}; lower it")
    if index is None or count > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.name for gpu in acquire(gpus, count))
    elif index < len(gpus):
        acquire([gpus[index]])
