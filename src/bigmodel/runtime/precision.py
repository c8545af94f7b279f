"""Choose the precision and memory format that a model is trained in: by rule, or by measurement on request.

The rule looks at the kind of device and the kinds of layers, so that a command repeats its bits. `auto` trains the
model for a few steps in each candidate and takes the fastest, which may be another one at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from bigmodel.errors import ConfigError, OutOfMemoryError
from bigmodel.formatting import first_line, truncate
from bigmodel.interfaces import Batch, Task
from bigmodel.runtime.device import Device
from bigmodel.runtime.timing import synchronized_time

_SAMPLES = {"cpu": 16, "cuda": 256}  # enough to fill the machine; fewer where they take too long
SIZING_ROUNDS = {"cpu": 1, "cuda": 3}  # at how many those are: a GPU takes many in the time of two
_STEP_S = 0.15  # of a measured step, about
ROUNDS = 3
MIN_SPEEDUP = 1.1  # a gain below it is not told from noise
MIN_SPEEDUP_LOW_PRECISION = 1.25  # nor is one below this worth fewer of them
_SWITCHED = (nn.Conv2d, nn.Conv3d)  # what channels-last is for
_BF16_IS_USUAL = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_AMPERE = (8, 0)  # compute capability
_BLOCK = 16  # channels that oneDNN takes at once with AVX-512, 8 with AVX2
_WORDS = {False: "contiguous", True: "channels-last"}


def choose_precision(device: Device, model: nn.Module, task: Task, example: Callable[[int], Batch]) -> None:
    """Choose precision and memory format for this model where the device has null or `auto`, and record why on the
    device.

    The model's weights and buffers are as before, its layout is the chosen one. Null is settled by rule; `auto` by
    training in each candidate on samples made by `example`, unless there is but one. The plain choice, fp32 and
    contiguous, stays unless another layout is faster by a tenth, or fewer bits by a quarter; one that the model cannot
    be trained in is no choice.

    Raises:
        ConfigError: channels-last is asked for, and would corrupt memory.
        OutOfMemoryError: a GPU has room for no candidate.
    """
    narrow = _unsafe_channels_last_conv(device, model)
    if device.channels_last is True and narrow:
        raise ConfigError(
            f"device.channels_last: {narrow}, a strided 1x1 convolution of fewer than {_BLOCK} channels, would corrupt "
            "memory in this layout on a CPU (oneDNN issue 6035); set it to false"
        )
    if None in (device.precision, device.channels_last):
        _choose_by_rule(device, model, narrow)
    candidates = list(_candidates(device, model)) if device.has_auto else []
    if len(candidates) > 1:
        kind = device.torch_device.type
        made = example(_SAMPLES.get(kind, 16))
        sample = Batch(made.inputs.to(device.torch_device), made.targets.to(device.torch_device))
        plain = candidates[0]
        count = fits = 2
        taken = 0.0
        for _ in range(SIZING_ROUNDS.get(kind, 1)):
            found = _measure(device, model, task, _first(count, sample), [plain], 1, {})
            if plain not in found:  # too many for its memory
                break
            fits = count
            taken = found[plain]
            count = min(len(sample.targets), max(2, int(_STEP_S * count / taken)))
        count = fits if kind == "cuda" else count
        sample = _first(count, sample)
        turns = ROUNDS if taken < 2 * _STEP_S else 2
        failed: dict[tuple[str, bool], str] = {}
        seconds = _measure(device, model, task, sample, candidates, turns, failed)
        if not seconds:
            raise OutOfMemoryError(f"device: {count} samples do not fit in any precision; lower batch_size")
        chosen = plain = next(iter(seconds))
        for pays, rivals in (
            (MIN_SPEEDUP, [each for each in seconds if each[0] == plain[0]]),
            (MIN_SPEEDUP_LOW_PRECISION, [each for each in seconds if each[0] != plain[0]]),
        ):
            best = min(rivals, key=lambda each: seconds[each], default=chosen)
            chosen = best if seconds[chosen] / seconds[best] >= pays else chosen
        compared = ", ".join(
            f"{precision} {_WORDS[last]} {count / taken:.3g}" for (precision, last), taken in seconds.items()
        )
        fails = "".join(f"; {precision} {_WORDS[last]} fails: {text}" for (precision, last), text in failed.items())
        device.set_precision(
            *chosen, f"measured, samples/s: {compared}{fails}; another start may choose otherwise", True
        )
    elif device.has_auto:
        device.set_precision(*candidates[0], "the only choice here for this model")
    if device.channels_last:
        model.to(memory_format=torch.channels_last)


def _choose_by_rule(device: Device, model: nn.Module, narrow: str | None) -> None:
    """Choose what is null in the device's settings by device type and the model's layers, without measuring.

    - NVIDIA GPUs from Ampere on have tensor cores for bf16: they get bf16 for networks of pictures, sound and text, and
      channels-last for convolutions. Networks without convolution or embedding stay in fp32: they are small, and their
      numbers are often measurements.
    - CPUs get fp32, which every one of them has the instructions for, and channels-last for convolutions with batch
      norms: 1.07 to 1.63 times as fast in 7 of 8 such networks, 0.92 in one (docs/performance.md); slower without.
    - All others get fp32, contiguous.
    """
    kinds = {type(module) for module in model.modules()}
    convolves = any(issubclass(kind, _SWITCHED) for kind in kinds)
    gpu = _has_bf16_cores(device.torch_device)
    precision, last = device.precision, device.channels_last
    if precision is None:
        precision = "bf16" if gpu and any(issubclass(kind, _BF16_IS_USUAL) for kind in kinds) else "fp32"
    if last is None:
        normalizes = any(issubclass(kind, _BATCH_NORMS) for kind in kinds)
        on_cpu = device.torch_device.type == "cpu" and normalizes and narrow is None
        last = convolves and (on_cpu or (gpu and precision == "bf16"))
    measures = "device=fastest measures"
    device.set_precision(precision, last, f"by rule for this kind of device and model; {measures}")  # type: ignore[arg-type]


def _has_bf16_cores(there: torch.device) -> bool:
    return there.type == "cuda" and torch.cuda.get_device_capability(there) >= _AMPERE


def _first(count: int, sample: Batch) -> Batch:
    return Batch(sample.inputs[:count], sample.targets[:count])


def _candidates(device: Device, model: nn.Module) -> Iterator[tuple[str, bool]]:
    """Return the candidates, the default first."""
    convolves = any(isinstance(module, _SWITCHED) for module in model.modules())
    layouts = (False, True) if convolves and not _unsafe_channels_last_conv(device, model) else (False,)
    fixed = device.channels_last
    for precision in _precisions(device):
        for last in layouts if fixed == "auto" else (bool(fixed),):
            yield precision, last


def _unsafe_channels_last_conv(device: Device, model: nn.Module) -> str | None:
    """Return the name of a convolution whose backward pass writes past its memory in the channels-last layout, if any.

    Seen with torch 2.14 (oneDNN issue 6035): crashes with one thread, wrong gradients with more.
    """
    if device.torch_device.type == "cpu":
        for name, module in model.named_modules():
            strided = isinstance(module, _SWITCHED) and max(module.kernel_size) == 1 < max(module.stride)
            if strided and module.in_channels < _BLOCK * module.groups:
                return str(name)
    return None


def _precisions(device: Device) -> tuple[str, ...]:
    if device.precision is not None and device.precision != "auto":
        return (device.precision,)
    match device.torch_device.type:
        case "cuda":
            return ("fp32", "tf32", "bf16") if _has_bf16_cores(device.torch_device) else ("fp32",)
        case "cpu":
            return ("fp32", "bf16") if _cpu_has_bf16() else ("fp32",)
    return ("fp32",)


def _cpu_has_bf16() -> bool:
    """Return whether the CPU has bf16 instructions; emulated bf16 is many times slower than fp32."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def _measure(
    device: Device,
    model: nn.Module,
    task: Task,
    sample: Batch,
    candidates: list[tuple[str, bool]],
    turns: int,
    failed: dict[tuple[str, bool], str],
) -> dict[tuple[str, bool], float]:
    """Measure seconds of a forward and a backward pass, the best of a few rounds; other load then counts for all.

    A candidate that raises is recorded in `failed` and left out; the first one may fail only by running out of memory.
    """
    buffers = [buffer.clone() for buffer in model.buffers()]
    taken: dict[tuple[str, bool], list[float]] = {candidate: [] for candidate in candidates}
    model.train()
    for turn in range(turns + 1):
        for precision, last in [candidate for candidate in candidates if candidate not in failed]:
            device.set_precision(precision, last, "")
            layout = torch.channels_last if last else torch.contiguous_format
            model.to(memory_format=layout)
            inputs = sample.inputs.to(memory_format=layout) if sample.inputs.ndim == 4 else sample.inputs
            began = synchronized_time(device.torch_device)
            try:
                with device.autocast():
                    loss, _ = task.loss(model, Batch(inputs, sample.targets))
                loss.backward()  # type: ignore[no-untyped-call]
            except Exception as error:  # as of an operation without a bf16 form
                if (precision, last) == candidates[0] and not isinstance(error, torch.OutOfMemoryError):
                    raise
                failed[precision, last] = truncate(first_line(error))
                model.zero_grad()
                continue
            if turn:  # the first fills the libraries' caches
                taken[precision, last].append(synchronized_time(device.torch_device) - began)
            model.zero_grad()
    model.to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return {candidate: min(times) for candidate, times in taken.items() if candidate not in failed}
