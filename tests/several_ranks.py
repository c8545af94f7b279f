"""Command lines on several ranks, as tests start, watch and end them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import only_run
from forks import ForkServerProcess, finished, launch, until

SHORT = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[16]", "log_every=1steps", "listeners=[]")
LONG = 300  # seconds that a run may take beside others


def start(cwd: Path, *words: str, **options: Any) -> ForkServerProcess:
    cwd.mkdir(exist_ok=True)
    (cwd / "said").unlink(missing_ok=True)
    return launch(*words, cwd=cwd, output=cwd / "said", **options)


def output_of(cwd: Path) -> str:
    return (cwd / "said").read_text(encoding="utf-8")


def trained(cwd: Path, *words: str, **options: Any) -> Path:
    assert finished(start(cwd, *words, **options), LONG) == 0, output_of(cwd)
    return only_run(cwd)


def rank_processes(process: ForkServerProcess) -> list[int]:
    """Process ids of the ranks, rank 0 first."""
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def running(cwd: Path, *words: str, **options: Any) -> tuple[ForkServerProcess, list[int]]:
    """A run of two ranks that has made its first steps, and would make many."""
    process = start(cwd, *SHORT, "epochs=100000", "evaluate_every=9999epoch", "device.count=2", *words, **options)
    assert until(
        lambda: any(file.stat().st_size > 200 for file in cwd.glob("outputs/*/*/metrics.jsonl")), process, LONG
    )
    return process, rank_processes(process)
