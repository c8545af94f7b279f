"""Measure the time of each phase of a run from outside: the loop and the state know nothing of it.

The objects given to the loop are wrapped, method by method. A run is in one phase at a time, so the phases add up to
the whole. On a GPU the timer synchronizes at each change, and a phase is then the device's time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import thread_time
from typing import Any

import torch
from torch.autograd.profiler import profile, record_function  # torch.profiler imports the compiler, 3 s

from bigmodel.interfaces import Batch
from bigmodel.runtime.timing import synchronized_time
from bigmodel.training.loop import Checkpointer
from bigmodel.training.state import TrainState

PHASES = ("data", "forward", "backward", "optimizer", "evaluation", "saving", "waiting", "tracing", "other")


class PhaseTimer:
    """Timer that wraps `state`, `data` and `saves` from `start` to `stop`. `seconds` has the time of each phase.

    While a trace is recorded, all time counts as tracing, which is slow; the trace shows the phases by name. `updates`
    has the seconds of each update that was not traced.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.updates: list[float] = []
        self.batch: Batch | None = None  # the first, without its content
        self._device = device
        self._phase = "other"
        self._since = synchronized_time(device)
        self._trace: profile | None = None
        self._mark = record_function("other")
        self._wrapped: list[tuple[Any, str]] = []

    def start(self, state: TrainState, data: Any, saves: Checkpointer, workers: bool) -> None:
        """Start. With `workers`, time in which the loading thread stands still counts as waiting for them."""
        update, train, evaluation = state.train_step, data.train_batches, data.eval_batches

        def timed_update(batch: Batch) -> None:
            if self.batch is None:
                self.batch = Batch(batch.inputs.to("meta"), batch.targets.to("meta"))
            self.switch_to("forward")
            began = self._since
            update(batch)
            self.switch_to("other")
            if self._trace is None:
                self.updates.append(self._since - began)

        def timed_train(first: int, last: int) -> Iterator[Batch]:
            batches = train(first, last)
            while True:
                self.switch_to("data")
                began, busy = self._since, thread_time()
                batch = next(batches, None)
                busy = thread_time() - busy
                self.switch_to("other")
                if workers and self._trace is None:
                    stood = max(0.0, self._since - began - busy)
                    self.seconds["data"] -= stood
                    self.seconds["waiting"] += stood
                if batch is None:
                    return
                yield batch

        def timed_evaluation(split: str) -> Iterator[Batch]:
            self.switch_to("evaluation")
            batches: Iterator[Batch] = evaluation(split)
            return batches

        self._wrap(state, "train_step", timed_update)
        self._wrap(data, "train_batches", timed_train)
        self._wrap(data, "eval_batches", timed_evaluation)
        self._wrap(state, "loss", self._timed_as("forward", state.loss, then="forward"))
        self._wrap(state.task, "train_sums", self._timed_as("forward", state.task.train_sums, then="backward"))
        self._wrap(state, "forward_backward", self._timed_as("forward", state.forward_backward, then="optimizer"))
        self._wrap(saves, "save", self._timed_as("saving", saves.save))
        self._wrap(saves, "_collect", self._timed_as("waiting", saves._collect))  # type: ignore[attr-defined]
        self._since = synchronized_time(self._device)

    def switch_to(self, phase: str) -> str:
        """Switch to `phase`; return the one before."""
        before, moment = self._phase, synchronized_time(self._device)
        self.seconds["tracing" if self._trace else before] += moment - self._since
        if self._trace and phase != before:
            self._mark.__exit__(None, None, None)
            self._mark = _begin_trace_span(phase)
        self._phase = phase
        self._since = moment
        return before

    def begin_trace(self) -> None:
        """Start to record every operation."""
        self.switch_to(self._phase)
        self._trace = profile(use_device="cuda" if self._device.type == "cuda" else None, use_kineto=True)
        self._trace.__enter__()  # type: ignore[no-untyped-call]
        self._mark = _begin_trace_span(self._phase)

    def end_trace(self, file: Path | None) -> None:
        """Stop recording, and write the trace in Chrome's format if a path is given."""
        if self._trace is None:
            return
        self._mark.__exit__(None, None, None)
        self._trace.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if file is not None:
            self._trace.export_chrome_trace(str(file))  # type: ignore[no-untyped-call]
        moment = synchronized_time(self._device)
        self.seconds["tracing"] += moment - self._since
        self._trace = None
        self._since = moment

    def stop(self) -> None:
        """Stop, and restore the wrapped objects."""
        self.switch_to("other")
        for owner, method in self._wrapped:
            delattr(owner, method)
        self._wrapped.clear()

    def _timed_as(self, phase: str, call: Callable[..., Any], then: str | None = None) -> Callable[..., Any]:
        """Return `call`, timed as `phase` except inside an evaluation, which is one phase. `then` is the phase after
        it.
        """

        def timed(*arguments: Any, **named: Any) -> Any:
            if self._phase == "evaluation":
                return call(*arguments, **named)
            before = self.switch_to(phase)
            try:
                return call(*arguments, **named)
            finally:
                self.switch_to(then or before)

        return timed

    def _wrap(self, owner: Any, method: str, timed: Callable[..., Any]) -> None:
        setattr(owner, method, timed)  # on the object, before its class's
        self._wrapped.append((owner, method))


def _begin_trace_span(phase: str) -> record_function:
    """Begin a span of the trace with this name."""
    mark = record_function(phase)
    mark.__enter__()  # type: ignore[no-untyped-call]
    return mark
