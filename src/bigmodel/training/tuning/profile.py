"""`profile=true`: a table of where a run's time and memory went, and a trace of a few steps for viewers."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch import nn

from bigmodel.events import Evaluated, Finished, Started, Stepped
from bigmodel.formatting import first_line, format_count, format_si
from bigmodel.safe_files import replacing, write_text
from bigmodel.training.build import TrainingRun
from bigmodel.training.saver import AsyncCheckpointer
from bigmodel.training.tuning.cost import StepCost, estimate_step_cost
from bigmodel.training.tuning.peak_flops import measure_peak_flops
from bigmodel.training.tuning.phase_timer import PhaseTimer

_WARM_UP, _TRACED, _MODULES = 5, 5, 8
_EACH_STEP = ("data", "forward", "backward", "optimizer")


class Profiler:
    """Listener that also wraps the objects of the run. The computation stays the same, to the last bit.

    Writes `trace.json` (Chrome's format) once a few steps are traced, and at the end `profile.txt`, which it prints.
    """

    def __init__(self, run: TrainingRun, saves: AsyncCheckpointer, directory: Path) -> None:
        self._run, self._saves, self._directory = run, saves, directory
        self._phases = PhaseTimer(run.device.torch_device)
        left = run.state.steps - run.state.step
        self._first = run.state.step + min(_WARM_UP, left // 3)  # the last step before the traced ones
        self._last = min(self._first + min(_TRACED, max(1, left // 3)), run.state.steps)

    def __call__(self, event: object) -> None:
        match event:
            case Started():
                self._phases.start(self._run.state, self._run.loader, self._saves, self._run.loader.uses_workers)
                self._trace_from(event.step)
            case Stepped():
                if event.step == self._last:
                    with replacing(self._directory / "trace.json") as file:
                        self._phases.end_trace(file)
                self._trace_from(event.step)
            case Evaluated():
                self._phases.switch_to("other")
            case Finished():
                self._phases.stop()
                text = "\n".join(self._report())
                write_text(self._directory / "profile.txt", text + "\n")
                with contextlib.suppress(OSError):  # a closed stdout
                    print("\n" + text, flush=True)

    def close(self) -> None:
        self._phases.end_trace(None)  # where the run ended in the middle of it

    def _trace_from(self, step: int) -> None:
        if step == self._first < self._last:
            self._phases.begin_trace()

    def _report(self) -> Iterator[str]:
        run, updates = self._run, self._phases.updates
        most = _peak_memory(run.device.torch_device)  # before the peak of the machine is measured, which takes more
        assert run.settings.batch_size is not None, "the config of a run that is built has its number"
        length, size = format_count(len(updates), "step"), format_count(run.settings.batch_size, "sample")
        yield f"profile of {length} of {size}, {run.device.precision}"
        yield f"on {run.device.name}"
        if run.device.torch_device.type != "cpu":
            yield "each phase was waited for: without a profile, what the host does overlaps more"
        yield ""
        yield from self._times()
        try:
            assert self._phases.batch is not None
            state = run.state
            cost = estimate_step_cost(
                state.model, state.task, self._phases.batch, state.optimizers, run.settings.num_microbatches
            )
        except RuntimeError as error:
            yield f"compute and memory are not known here: {first_line(error)}"
        else:
            yield from self._compute(cost)
            yield from _memory(cost, run.state.model)
        yield f"{'at most':>12}  {most}"
        yield ""
        if (self._directory / "trace.json").is_file():
            yield f"trace of steps {self._first + 1} to {self._last}: {self._directory / 'trace.json'}"
            yield "open it in https://ui.perfetto.dev or chrome://tracing"

    def _times(self) -> Iterator[str]:
        seconds, steps = self._phases.seconds, max(1, len(self._phases.updates))
        whole = sum(seconds.values())
        yield f"{'phase':>12} {'seconds':>10} {'share':>7} {'ms a step':>11}"
        for phase, spent in seconds.items():
            each = f"{1000 * spent / steps:11.3f}" if phase in _EACH_STEP else ""
            yield f"{phase:>12} {spent:10.3f} {spent / whole:7.1%} {each}".rstrip()
        yield f"{'whole':>12} {whole:10.3f} {1:7.1%}"
        yield f"{'waiting':>12}  for data workers and for a save under way"
        yield f"{'tracing':>12}  the traced steps, which are in no other row"
        yield f"{'other':>12}  the loop itself, and what listens to it"
        yield ""

    def _compute(self, cost: StepCost) -> Iterator[str]:
        peak = measure_peak_flops(self._run.device)
        yield f"{'compute':>12}  {format_si(cost.flops, 'FLOP')} per step"
        if self._phases.updates:
            took = median(self._phases.updates)
            rate = cost.flops / took
            yield f"{'median step':>12}  {1000 * took:.4g} ms for forward, backward and optimizer"
            yield f"{'achieved':>12}  {format_si(rate, 'FLOP/s')}, {rate / peak.flops_per_s:.1%} of the peak"
        yield f"{'peak here':>12}  {format_si(peak.flops_per_s, 'FLOP/s')}, {peak.operation}"
        yield ""


def _memory(cost: StepCost, model: nn.Module) -> Iterator[str]:
    for name, size in cost.memory_by_use.items():
        yield f"{name:>12}  {format_si(size, 'B')}"
    weights = {name: sum(p.nbytes for p in module.parameters(recurse=False)) for name, module in model.named_modules()}
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    kept = dict(cost.activations_of)
    names = sorted({*weights, *kept}, key=lambda name: -(weights.get(name, 0) + kept.get(name, 0)))
    yield ""
    yield f"{'largest':>36} {'weights':>10} {'activations':>12}"
    for name in names[:_MODULES]:
        shown = f"{kinds.get(name, '')} {name}".strip()
        yield f"{shown[-36:]:>36} {format_si(weights.get(name, 0), 'B'):>10} {format_si(kept.get(name, 0), 'B'):>12}"
    yield ""


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{format_si(torch.cuda.max_memory_allocated(device), 'B')} allocated on the GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{format_si(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, 'B')} resident in this process"
