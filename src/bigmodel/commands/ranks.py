"""A run on several ranks: start or join them, and what a rank does that leaves files and terminal to rank 0."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from bigmodel.commands.exit_codes import exit_code_of, is_verbose
from bigmodel.commands.restarts import TIMEOUT_S, run_with_restarts
from bigmodel.config.config import Config
from bigmodel.config.saved import load_config
from bigmodel.config.validation import auto_keys
from bigmodel.errors import AlreadyReported, ConfigError, Interrupted
from bigmodel.events import Saved
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint_parts import PartialSaves
from bigmodel.runs.checkpoint_path import checkpoint_path
from bigmodel.runs.lock import RunLock
from bigmodel.runtime.distributed import join_ranks
from bigmodel.runtime.gpus import Gpu, acquire_idle, visible_gpus
from bigmodel.runtime.launch import Place, meeting_point, place_of_this_process
from bigmodel.runtime.live_text import StatusLine
from bigmodel.runtime.signals import StopRequest, exit_with_parent
from bigmodel.runtime.torchrun import TorchrunNote
from bigmodel.runtime.world import World
from bigmodel.safe_files import TEMP_PREFIX
from bigmodel.training.build import TrainingRun
from bigmodel.training.error_translation import translate_run_errors
from bigmodel.training.evaluation import evaluate
from bigmodel.training.loop import train
from bigmodel.training.restoring import load_weights
from bigmodel.training.saver import AsyncCheckpointer
from bigmodel.training.state import TrainState

TrainRank = Callable[..., object]


def run_on_ranks(config: Config, stop: StopRequest, run: TrainRank, report: Callable[[str], object]) -> bool:
    """Train by `run` on several ranks where the config or this process's launcher asks for them; return whether.

    Each rank calls `run` with its own config, `stop` and `report` and, when it resumes after a failure, with the run's
    directory. A process that torchrun or srun has started ends here, with the run's exit code.

    Raises:
        AlreadyReported: a rank that this process has started has failed, and has said why.
        BigmodelError: a rank was killed or hung, and too often.
        ConfigError: the config and several ranks do not go together.
    """
    if config.values["dry_run"]:
        return False
    if (place := place_of_this_process()) is not None:
        _check(config, place.size)
        os.environ.update(meeting_point())
        report("")
        if (note := TorchrunNote.of_this_process(Path(config.values["output_dir"]), config.to_yaml())) is not None:
            exit_with_parent(os.getppid())
        os._exit(_run_rank(config, run, replace(place, watch=note), stop, note))
    count = _count(config)
    if count == 1:
        return False
    _check(config, count)
    report("")
    run_with_restarts(config, count, lambda place, stop, begun: _run_rank(config, run, place, stop, begun=begun), stop)
    return True


def _run_rank(
    config: Config,
    run: TrainRank,
    place: Place,
    stop: StopRequest,
    note: TorchrunNote | None = None,
    begun: Path | None = None,
) -> int:
    """Join the other ranks and train, from the last checkpoint of the run that has `begun`, or that rank 0 finds in the
    `note`. Returns the exit code; the streams are flushed.
    """
    device = config.values["device"]
    use_gpus = device["kind"] in ("auto", "cuda") and torch.cuda.is_available()

    def trained() -> int:
        with join_ranks(place, use_gpus, device.get("timeout", TIMEOUT_S)) as world, StatusLine() as status:
            found = begun
            if note is not None:
                said = world.broadcast_text(str(note.find() or ""))
                found = Path(said) if said else None

            def report(text: str) -> None:
                place.sign()
                if place.rank == 0:
                    status.show(text)

            again = {} if found is None else {"directory": found, "resume": True}
            own = config if found is None else load_config(found / "config.yaml", config.trust)
            if place.size == 1:  # of a torchrun that others may have left
                own = own.with_values({"device.count": 1})
            run(own, stop=stop, report=report, **again)
            if note is not None and place.rank == 0:
                note.forget()
        return 0

    try:
        return exit_code_of(trained, is_verbose(sys.argv), stop)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _count(config: Config) -> int:
    """Return how many ranks the config asks for; on GPUs, show this process and its ranks only theirs.

    Raises:
        ConfigError: there are fewer GPUs.
    """
    device = config.values["device"]
    asked, kind = device.get("count", 1), device.get("kind")
    if asked == 1:
        return 1
    gpus = visible_gpus() if kind in ("auto", "cuda") else []
    if asked == "auto":
        chosen: list[Gpu] = acquire_idle(gpus)
    else:
        chosen = sorted(gpus, key=lambda gpu: (gpu.used_mib, gpu.busy))[:asked]
        if len(chosen) < asked and (gpus or kind == "cuda"):
            raise ConfigError(f"device.count: {asked} ranks need a GPU each, and there are {len(gpus)}; use device=cpu")
    if chosen:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.name for gpu in chosen)
    return max(1, len(chosen)) if asked == "auto" else int(asked)


def _check(config: Config, count: int) -> None:
    """Raise ConfigError for each setting that several ranks do not go with; the device refuses those of its own."""
    problems = [
        f"{key}: auto tries values in one process, not in {count} ranks; give a number"
        for key in auto_keys(config.values)
    ]
    if config.values["profile"]:
        problems.append(f"profile: looks at one process, not at {count} ranks; use device.count=1")
    if problems:
        raise ConfigError(*problems)


def should_stop(built: TrainingRun, stop: StopRequest) -> bool:
    """Whether any rank was asked to stop; all ranks ask after each step, and so stop after the same one."""
    built.device.world.place.note_step(built.state.step)
    return built.device.world.any(stop())


def lock_run(directory: Path, place: Place) -> RunLock:
    """Lock the run for the process that has started the ranks too, which holds the lock until the last restart.

    Raises:
        StorageError: another process holds the lock.
    """
    held = place.watch.lock if place.watch is not None else None
    lock = RunLock(directory, inherited=held)
    if place.watch is not None and held is None:
        place.watch.note_run(directory, lock.fileno())
    return lock


class _NoCheckpoints:
    """The checkpoints of a rank that writes none."""

    def save(self, state: TrainState, passing: bool = False) -> None:
        """Leave it to rank 0."""

    def completed(self, wait: bool = False) -> Iterable[Saved]:
        return ()


def tell_followers(built: TrainingRun, directory: Path, restored: bool) -> None:
    """Tell the other ranks, as rank 0, the run's directory and the step to resume from."""
    world = built.device.world
    mark = directory / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    if world.is_divided:
        mark.touch()
    world.broadcast_text(json.dumps([str(directory), mark.name, built.state.step if restored else None]))
    _check_seen(world, mark)
    mark.unlink(missing_ok=True)


def _check_seen(world: World, mark: Path) -> None:
    """Raise ConfigError unless all ranks see what rank 0 has written, where each has a part of checkpoints to write."""
    if world.is_divided and world.any(not mark.is_file()):
        raise ConfigError(
            f"output_dir: {mark.parent} of rank 0 is not there for every rank, and each writes a part of checkpoints; "
            "set output_dir to a directory that all machines share"
        )


def share_tested(built: TrainingRun, directory: Path, step: int) -> None:
    """Give all ranks the weights to test, which rank 0 has: those of its `step`."""
    world, state = built.device.world, built.state
    if not world.is_divided:
        world.broadcast(state.result_module.state_dict().values())
    elif (step := int(world.broadcast_text(str(step)))) != state.step and world.rank:
        found = checkpoint.load(checkpoint_path(directory / "checkpoints", step), whole=False, by_hash=False)
        load_weights(state.result_module, found.weights, world)


def follow(built: TrainingRun, stop: StopRequest) -> None:
    """Take part in a run as a rank other than 0: the same steps and evaluations, but no files and no words.

    Raises:
        AlreadyReported: the run was interrupted, which rank 0 reports.
        BigmodelError: what ended the run on this rank.
    """
    world, state = built.device.world, built.state
    name, mark, step = json.loads(world.broadcast_text(""))
    directory = Path(name)
    saves: AsyncCheckpointer | _NoCheckpoints = _NoCheckpoints()
    if world.is_divided:
        saves = AsyncCheckpointer(directory / "checkpoints", {}, built.settings.keep, parts=PartialSaves(world))
    with translate_run_errors(directory, state, built.config.trust_for_resume):
        _check_seen(world, directory / mark)
        if step is not None:
            path = checkpoint_path(directory / "checkpoints", step)
            found = checkpoint.load(path, whole=not world.is_divided, by_hash=not world.is_divided)
            state.load_state(found.tensors, found.state)
        try:
            outcome = train(
                *(state, built.loader, built.loop_options, built.device, saves, lambda event: None),
                partial(should_stop, built, stop),
            )
            if state.steps == 0:
                saves.save(state)
        finally:
            saves.completed(wait=True)  # the other ranks' part of it waits for this one's
        if outcome == "interrupted":
            raise AlreadyReported(Interrupted.exit_code)
        if "test" in built.loader.splits:
            share_tested(built, directory, state.step)
            evaluate(state.eval_model, state.task, built.loader.eval_batches("test"), built.device)
