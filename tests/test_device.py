"""Which device a run gets."""

from __future__ import annotations

import platform
import resource
from multiprocessing import get_context

import pytest
import torch

from bigmodel.errors import ConfigError
from bigmodel.runtime.device import Device
from bigmodel.runtime.gpus import index_of_least_used

SMI = """\
0, GPU-aaaa, 8000, 90
1, GPU-bbbb, 300, 5
2, GPU-cccc, 300, 0
3, GPU-dddd, 10, 0
"""


@pytest.mark.parametrize(
    ("visible", "count", "chosen"),
    [
        (None, 4, 3),
        ("", 4, 3),
        (None, 3, 2),  # of equal memory the one with less work
        (None, 1, 0),
        ("0,1", 2, 1),
        ("1,0", 2, 0),  # torch's number, not nvidia-smi's
        ("3,2,1", 3, 0),
        ("GPU-aaaa,GPU-dddd", 2, 1),
        ("GPU-dddd, GPU-aaaa", 2, 0),
        (" 0 , 2 ", 2, 1),
        ("7,1", 2, 1),  # one nvidia-smi does not know comes last
        ("7,8", 2, 0),
    ],
)
def test_the_idlest_gpu_is_named_as_torch_names_it(visible: str | None, count: int, chosen: int) -> None:
    assert index_of_least_used(SMI, visible, count) == chosen


@pytest.mark.parametrize("word", ["[N/A]", "N/A", "[Not Supported]"])
def test_what_nvidia_smi_does_not_know_counts_as_idle(word: str) -> None:
    assert index_of_least_used(f"0, GPU-a, 50, {word}\n1, GPU-b, 40, {word}\n", None, 2) == 1
    assert index_of_least_used(f"0, GPU-a, 50, 9\n1, GPU-b, 50, {word}\n", None, 2) == 1
    assert index_of_least_used(f"0, GPU-a, {word}, 1\n1, GPU-b, 5, 0\n", None, 2) == 0


@pytest.mark.parametrize("answer", ["", "\n", "No devices were found\n"])
def test_an_answer_without_gpus_is_no_error(answer: str) -> None:
    assert index_of_least_used(answer, None, 2) == 0


def test_the_cpu_is_always_there() -> None:
    device = Device(kind="cpu", threads=1)
    assert device.torch_device == torch.device("cpu")
    assert device.name.startswith("cpu")
    assert device.threads == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="device=cpu"):
        Device(kind="cuda")


def test_tf32_on_the_cpu_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"device\.precision"):
        Device(kind="cpu", precision="tf32")


def test_graphs_on_the_cpu_are_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"device\.compile: graphs need"):
        Device(kind="cpu", compile="graphs")


def test_bf16_computes_in_bf16_and_fp32_does_not() -> None:
    matrix = torch.ones(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with Device(kind="cpu", precision=precision).autocast():
            assert (matrix @ matrix).dtype == dtype


def test_seeding_depends_on_seed_and_purpose_alone() -> None:
    device = Device(kind="cpu")
    before = torch.get_rng_state()
    try:
        drawn = {}
        for key in ((0, "step", 1), (0, "step", 2), (1, "step", 1), (0, "initialisation")):
            for _ in range(2):
                device.seed_rng(*key)
                drawn.setdefault(key, []).append(float(torch.rand(())))
                torch.rand(5)
        assert all(first == second for first, second in drawn.values())
        assert len({first for first, _ in drawn.values()}) == 4
    finally:
        torch.set_rng_state(before)


def _faults(keep_memory: bool) -> int:
    """Page faults of a block of 64 MB that comes and goes four times, when it has done so before."""
    Device("cpu", keep_memory=keep_memory).configure_torch()
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.zeros(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_is_kept_only_where_it_is_asked_for() -> None:
    with get_context("forkserver").Pool(1, maxtasksperchild=1) as pool:  # a process each: what is kept stays
        kept, given_back = (pool.apply(_faults, (keep_memory,)) for keep_memory in (True, False))
    assert kept < 64 < given_back  # of pages of 2 MB at the most
