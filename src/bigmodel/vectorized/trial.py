"""Whether jobs can be trained as one program, found by trying: one step's gradients, computed both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import process_time

import torch
from torch import Tensor

from bigmodel.assembly import Parts
from bigmodel.clock import now
from bigmodel.interfaces import Batch
from bigmodel.job import Job
from bigmodel.vectorized.stack import Stack
from bigmodel.words import first_line

_CLOSE = 1e-3  # of the gradient's norm; rounding is a hundredth of it
_NOISE = 1e-6  # of the largest norm: a gradient that is zero but for rounding, as a bias's before a norm, is no measure
_SLOWER = 3.0  # times as long as one by one; below it, what each process costs to start is more
_TURNS = 2


def refusal(parts: Sequence[Parts]) -> str | None:
    """Why these jobs are better trained by themselves, or None. They are left as they were."""
    if any("until" in group for group in parts[0].job.groups):
        return "some parameters are trained for a part of the run only"
    jobs = [each.job for each in parts]
    batches = [next(each.data.train(job.step, job.step + 1)) for each, job in zip(parts, jobs, strict=True)]
    before = [[buffer.clone() for buffer in job.model.buffers()] for job in jobs]
    try:
        return _differs(jobs, batches, before)
    except Exception as error:  # a user's model, and torch.vmap says in many ways that it cannot
        told = first_line(error).partition(". ")[0]
        return f"its model cannot be computed for many jobs at once: {type(error).__name__}: {told}"
    finally:
        for job, buffers in zip(jobs, before, strict=True):
            _put_back(job, buffers)
            for parameter in job.model.parameters():
                parameter.grad = None


def _differs(jobs: Sequence[Job], batches: Sequence[Batch], buffers: Sequence[Sequence[Tensor]]) -> str | None:
    stack = Stack(jobs)
    last = len(jobs) - 1

    def alone() -> None:
        jobs[last].model.zero_grad()
        Job.gradients(jobs[last], batches[last])

    def together() -> None:
        stack.drop_gradients()
        stack.gradients(batches)

    seconds, there = {}, jobs[0].device.torch_device
    for compute in (alone, together):
        compute()  # fills the libraries' caches
        _put_back(jobs[last], buffers[last])
        seconds[compute] = min(_seconds(compute, there) for _ in range(_TURNS))
    _put_back(jobs[last], buffers[last])
    alone()
    own = [buffer.clone() for buffer in jobs[last].model.buffers()]
    _put_back(jobs[last], buffers[last])
    together()
    pairs = [
        (name, parameter.grad, stack.gradient(name, last)) for name, parameter in jobs[last].model.named_parameters()
    ]
    named = zip(jobs[last].model.named_buffers(), own, strict=True)
    pairs += [(name, value, buffer) for (name, buffer), value in named]
    stack.drop_gradients()
    floor = _NOISE * max(float(expected.norm()) for _, expected, _ in pairs if expected is not None)
    for name, expected, found in pairs:
        if not _close(expected, found, floor):
            return f"computed for many jobs at once, its model does not give the same ({name})"
    ratio = seconds[together] / (seconds[alone] * len(jobs))
    return f"one program would take {ratio:.1f} times as long" if ratio > _SLOWER else None


def _seconds(compute: Callable[[], None], device: torch.device) -> float:
    clock = process_time if device.type == "cpu" else partial(now, device)  # whatever else the machine does
    began = clock()
    compute()
    return clock() - began


def _close(expected: Tensor | None, found: Tensor | None, floor: float) -> bool:
    if expected is None or found is None:
        return expected is found
    expected = expected.double()
    return bool((found.double() - expected).norm() <= _CLOSE * expected.norm() + floor)


def _put_back(job: Job, buffers: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for buffer, before in zip(job.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
