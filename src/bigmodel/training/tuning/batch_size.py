"""Find `batch_size=auto` by a few updates with each power of two: the largest that fits on a GPU, else the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import torch

from bigmodel.errors import OutOfMemoryError
from bigmodel.interfaces import Batch
from bigmodel.runtime.timing import synchronized_time
from bigmodel.training.build import TrainingRun
from bigmodel.training.error_translation import translate_oom
from bigmodel.training.tuning.cost import estimate_step_cost

_SMALLEST, _LARGEST_ON_CPU = 16, 1024
_UPDATES_AN_EPOCH = 16  # at least, where the data has as many: fewer train badly, however fast they are
MIN_UPDATES, PROBE_S, TOTAL_S = 3, 0.15, 10.0  # of one size at least, one size, and all sizes where they are for speed
_HEADROOM = 0.9  # of a GPU's memory: evaluation and the allocator's gaps need some as well
_SHARE = 0.5  # of a computer's free memory: other programs need some as well
_AS_GOOD = 0.97  # of the best rate; smaller batches make more updates of the same samples


def measure_throughput(run: TrainingRun) -> dict[int, float]:
    """Measure samples/s of updates, without reading data, for each batch size that fits. The run is spent afterwards.

    Raises:
        OutOfMemoryError: not even the smallest fits.
    """
    state, device = run.state, run.device.torch_device
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = 0.0  # the full arithmetic, but nothing can diverge
    sample = next(run.loader.train_batches(0, 1))
    free = _free_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    ends = perf_counter() + TOTAL_S
    found: dict[int, float] = {}
    for size in _sizes(run):
        speed = max(found.values(), default=float("inf"))
        late = perf_counter() + (1 + MIN_UPDATES) * size / speed > ends
        if found and device.type != "cuda" and (late or _estimated_bytes(run, sample, size) > _SHARE * free):
            break
        chosen = torch.arange(size, device=device) % len(sample.targets)
        try:
            with translate_oom(""):
                seconds = _fastest_update(run, Batch(sample.inputs[chosen], sample.targets[chosen]))
        except OutOfMemoryError:
            break
        if device.type == "cuda" and _near_memory_limit(device):
            break
        found[size] = size / seconds
    if not found:
        raise OutOfMemoryError(
            "batch_size: auto found no batch size that fits in memory; use a smaller model, or set "
            "batch_size=16 accumulate=2"
        )
    return found


def pick_batch_size(rates: dict[int, float], device: torch.device) -> int:
    """Pick the largest on a GPU; else the smallest that is nearly as fast as the fastest."""
    if device.type == "cuda":
        return max(rates)
    return min(size for size, rate in rates.items() if rate >= _AS_GOOD * max(rates.values()))


def _sizes(run: TrainingRun) -> Iterator[int]:
    """Yield the powers of two to try, which leave enough updates per epoch and one sample per micro-batch."""
    samples = run.loader.splits["train"]
    most = max(samples // _UPDATES_AN_EPOCH, min(samples, max(_SMALLEST, run.settings.num_microbatches)))
    if run.device.torch_device.type != "cuda":
        most = min(most, max(_LARGEST_ON_CPU, run.settings.num_microbatches))
    size = min(_SMALLEST, 1 << (most.bit_length() - 1))
    while size <= most:
        if size >= run.settings.num_microbatches:
            yield size
        size *= 2


def _fastest_update(run: TrainingRun, batch: Batch) -> float:
    """Measure the seconds of an update, after one to warm up."""
    device = run.device.torch_device
    run.state.train_step(batch)
    times: list[float] = []
    while len(times) < MIN_UPDATES or sum(times) < PROBE_S:
        began = synchronized_time(device)
        run.state.train_step(batch)
        times.append(synchronized_time(device) - began)
    return min(times)


def _estimated_bytes(run: TrainingRun, sample: Batch, size: int) -> float:
    """Estimate the bytes of an update, where they can be known without one."""
    state = run.state
    try:
        cost = estimate_step_cost(state.model, state.task, sample, state.optimizers, 1)
    except RuntimeError:
        return 0.0
    share = size / len(sample.targets) / run.settings.num_microbatches
    return cost.memory + cost.activation_bytes * (share - 1)


def _free_memory() -> float:
    """Return the bytes of memory that are free by Linux's account; infinite on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return float("inf")
    try:  # a container may have less
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        return free
    return min(free, most - used)


def _near_memory_limit(device: torch.device) -> bool:
    """Return whether the last probe used more of the GPU than it should; resets the count for the next."""
    free, _ = torch.cuda.mem_get_info(device)
    ours, most = torch.cuda.memory_reserved(device), torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return most > _HEADROOM * (free + ours)
