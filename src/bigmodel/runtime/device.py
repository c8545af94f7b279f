"""The device of a run: which one, its precision, threads, determinism and the seeding of each step."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import torch

from bigmodel.constraints import NonNegativeInt, Positive, PositiveInt
from bigmodel.errors import ConfigError
from bigmodel.runtime.allocator import keep_freed_memory
from bigmodel.runtime.distributed import current_world
from bigmodel.runtime.lazy_compiler import avoid_dynamo_import, set_deterministic_algorithms
from bigmodel.runtime.openmp import start_threads
from bigmodel.runtime.selection import select_device
from bigmodel.seeds import derive

__all__ = ["Device"]

_F = TypeVar("_F", bound=Callable[..., Any])
MAX_COMPILED_SHAPES = 64  # per compiled function (torch's default: 8); Muon's iteration needs one per matrix shape


class Device:
    """A chosen device, ready to compute. `torch_device` is where tensors go, `world` the ranks that share the batches.

    `count` is the number of ranks; it may differ from the size of `world` in a dry run, which is one process.
    The model is divided among `parts` ranks; `sharding` describes that as text. `restarts` and `timeout` are for the
    process that starts the ranks.

    Raises:
        ConfigError: there is no such device here, or it has no such number, precision or mode.
    """

    def __init__(
        self,
        kind: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        index: NonNegativeInt | None = None,
        precision: Literal["auto", "fp32", "tf32", "bf16"] | None = "fp32",
        channels_last: bool | Literal["auto"] | None = False,
        compile: bool | Literal["graphs"] = False,
        threads: PositiveInt | None = None,
        deterministic: bool = False,
        keep_memory: bool = False,
        cudnn_benchmark: bool = False,
        count: PositiveInt | Literal["auto"] = 1,
        checkpoint_activations: Literal["none", "blocks", "auto"] = "none",
        memory_gb: Positive | None = None,
        restarts: NonNegativeInt = 3,
        timeout: Positive | None = 600,
        shard: Literal["auto", "none", "full", "hybrid"] = "auto",
        shard_ranks: PositiveInt | None = None,
    ) -> None:
        self.world = current_world()
        self.count = self.world.size if self.world.size > 1 or count == "auto" else count
        self.torch_device = select_device(kind, index, self.world.place.local_rank if self.world.size > 1 else None)
        self.precision_reason = "as asked"
        if deterministic and "auto" in (precision, channels_last):  # measurements may come out otherwise the next time
            precision = "fp32" if precision == "auto" else precision
            channels_last = False if channels_last == "auto" else channels_last
            self.precision_reason = "the plain choice: deterministic=true measures nothing"
        self.precision: str | None = precision
        self.channels_last: bool | str | None = channels_last
        self.measured = self.departs = False
        self._benchmark = cudnn_benchmark and not deterministic
        self._compile = bool(compile)
        self._graphs = compile == "graphs"
        self._deterministic = deterministic
        shares_cores = self.world.size == 1 or self.world.place.is_watched  # else its launcher has given it its own
        self.threads = threads or max(1, torch.get_num_threads() // (self.count if shares_cores else 1))
        self._keep_memory = keep_memory
        self._memory_gb = memory_gb
        self.checkpoint_activations = checkpoint_activations
        if precision == "tf32" and self.torch_device.type != "cuda":
            raise ConfigError(f"device.precision: tf32 needs an NVIDIA GPU, and this run is on {self.name}; use fp32")
        if self._graphs and self.torch_device.type != "cuda":
            raise ConfigError(f"device.compile: graphs need an NVIDIA GPU, and this run is on {self.name}; use true")
        self.shard = shard
        self.parts = 1
        self.sharding = ""
        self._check_shard(shard_ranks)
        if self.count > 1:
            self._check_ranks()
        if deterministic and self.torch_device.type == "mps":
            raise ConfigError(
                "device.deterministic: Apple GPUs promise no bitwise repetition; use device=cpu, or leave it false"
            )

    def _check_ranks(self) -> None:
        """Raise ConfigError for what several ranks do not go with."""
        if self.torch_device.type == "mps":
            raise ConfigError("device.count: this machine has one Apple GPU; use device.count=1 or device=cpu")
        if self._graphs:
            raise ConfigError("device.compile: graphs are for one rank; use true, or device.count=1")
        if "auto" in (self.precision, self.channels_last):
            raise ConfigError(
                "device.precision: auto measures, and each rank could choose otherwise; use null, which goes by rule"
            )

    def _check_shard(self, ranks: int | None) -> None:
        """Settle among how many ranks the model is divided. Raises ConfigError where it cannot be."""
        if ranks is not None and self.shard != "hybrid":
            raise ConfigError(f"device.shard_ranks: is for device.shard=hybrid, got {self.shard}; leave it null")
        if self.shard not in ("full", "hybrid"):
            return
        if self.count == 1:
            raise ConfigError(
                f"device.shard: {self.shard} divides the model among ranks; set device.count, or use none"
            )
        parts = self.count if self.shard == "full" else ranks or self.world.place.local_size or self.count
        if self.shard == "hybrid" and (self.count % parts or not 1 < parts < self.count):
            raise ConfigError(
                f"device.shard_ranks: hybrid takes a part of {self.count} ranks that divides this number, got "
                f"{parts}; set device.shard_ranks, or use device.shard=full"
            )
        self.divide(parts)

    def divide(self, parts: int) -> None:
        """Divide the model among `parts` ranks, and its copies among as many others. Raises ConfigError."""
        if self._compile:
            raise ConfigError("device.compile: a model divided among ranks is not compiled; use device.shard=none")
        if self.channels_last is True:
            raise ConfigError("device.channels_last: weights divided among ranks are contiguous; set it to false")
        self.parts = parts
        self.channels_last = False
        copies = f", {self.count // parts} times" if parts < self.count else ""
        self.sharding = f"the model is divided among {parts} of them{copies}"

    @property
    def may_divide(self) -> bool:
        """Whether the model may have to be divided among the ranks."""
        return self.count > 1 and self.shard != "none"

    @property
    def home(self) -> torch.device:
        """Where the model is built: on a CPU, as long as it may be too large for this device."""
        return torch.device("cpu") if self.may_divide else self.torch_device

    def check_alone(self) -> None:
        """Raise ConfigError if ranks are asked for, where a command computes in its own process."""
        if self.count > 1:
            raise ConfigError(f"device.count: this command computes in one process, got {self.count}; leave it 1")

    @property
    def accumulator_dtype(self) -> torch.dtype:
        """Dtype of metric sums: float64 keeps counts exact up to 2**53; Apple's GPUs have float32 only."""
        return torch.float32 if self.torch_device.type == "mps" else torch.float64

    @property
    def name(self) -> str:
        if self.torch_device.type == "cuda":
            where, what, backend = str(self.torch_device), torch.cuda.get_device_name(self.torch_device), "nccl"
        else:
            where, what, backend = self.torch_device.type, platform.processor() or platform.machine(), "gloo"
            what += f", {self.threads} threads"
        if self.count > 1:
            return f"{self.count} ranks on {self.torch_device.type} ({backend}; each {what})"
        return f"{where} ({what})"

    @property
    def is_async(self) -> bool:
        """Whether the device works asynchronously, so that reading a number waits for it."""
        return self.torch_device.type == "cuda"

    @property
    def memory_bytes(self) -> float | None:
        """Memory of a card: as the config says, or an NVIDIA GPU's; None where neither is known."""
        if self._memory_gb is not None:
            return self._memory_gb * 1e9
        on_gpu = self.torch_device.type == "cuda"
        return float(torch.cuda.get_device_properties(self.torch_device).total_memory) if on_gpu else None

    @property
    def reproducibility(self) -> str:
        """Whether a second run of the same config on this machine gives the same bits, as text."""
        if self.torch_device.type == "cpu" or self._deterministic:
            return f"bitwise, with the same versions{' and threads' if self.torch_device.type == 'cpu' else ''}"
        hint = "; set device.deterministic=true for that" if self.torch_device.type == "cuda" else ""
        if self._benchmark:
            hint += "; device.cudnn_benchmark=true times kernels at each start"
        return f"not bitwise on {self.torch_device.type}{hint}"

    def configure_torch(self) -> None:
        """Set torch's global switches. Call once per process, before the model is built."""
        torch.set_num_threads(self.threads)
        start_threads(self.threads)
        self._switch_tf32()
        torch.backends.cudnn.benchmark = self._benchmark  # a stopwatch, too: other kernels have other last bits
        if self._deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if self._compile:
            import torch._dynamo.config as compiler  # 2 s, which only a compiled run pays

            compiler.recompile_limit = max(MAX_COMPILED_SHAPES, compiler.recompile_limit)  # what comes after stays slow
            torch.use_deterministic_algorithms(self._deterministic)
        else:
            set_deterministic_algorithms(self._deterministic)
            avoid_dynamo_import()
        if self.torch_device.type == "cuda":
            torch.cuda.set_device(self.torch_device)
        elif self.torch_device.type == "cpu":
            keep_freed_memory(everything=self._keep_memory)

    @property
    def has_auto(self) -> bool:
        """Whether precision or memory format are still to be chosen for the model."""
        return not {"auto", None}.isdisjoint((self.precision, self.channels_last))

    @property
    def choice(self) -> str:
        """Precision and memory format with the reason, as text."""
        return f"{self.precision}, {'channels-last' if self.channels_last else 'contiguous'}; {self.precision_reason}"

    def set_precision(self, precision: str, channels_last: bool, why: str, measured: bool = False) -> None:
        """Set precision and memory format; `why` is for the plan; `measured`: another start may choose otherwise.

        `departs` is then whether a person should be told: the choice was measured, or is not fp32 and contiguous.
        """
        self.precision = precision
        self.channels_last = channels_last
        self.precision_reason = why
        self.measured = measured
        self.departs = measured or precision != "fp32" or channels_last
        self._switch_tf32()

    def _switch_tf32(self) -> None:
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Run the forward pass in bf16 where that is safe, if that is the run's precision."""
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, torch.bfloat16)

    def maybe_compile(self, function: _F, same_shapes: bool = False) -> _F:
        """Return the function or module, compiled if asked. With `same_shapes` each shape has code of its own, and
        where graphs are asked for the whole of its kernels is launched at once (CUDA graphs).
        """
        if not self._compile:
            return function
        if not same_shapes:
            return cast(_F, torch.compile(function))
        return cast(_F, torch.compile(function, dynamic=False, mode="reduce-overhead" if self._graphs else None))

    def mark_step_begin(self) -> None:
        """Mark the previous step's results as no longer needed: CUDA graphs overwrite them."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def seed_rng(self, seed: int, *purpose: int | str) -> None:
        """Seed dropout and every other global draw by (seed, purpose), independent of earlier draws."""
        key = derive(seed, *purpose)
        torch.default_generator.manual_seed(key)
        if self.torch_device.type == "cuda":
            torch.cuda.default_generators[self.torch_device.index].manual_seed(key)
        elif self.torch_device.type == "mps":
            torch.mps.manual_seed(key)
