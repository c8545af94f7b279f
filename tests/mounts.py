"""File systems of one's own that are really full, read-only or too small, without a trace on the machine.

A holder process lives in a private mount namespace and has a size-limited tmpfs mounted there. Child processes enter
the namespace before their first line; the test looks in through the holder's root.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

_CLONE_NEWNS = 0x20000


class Mount:
    """A tmpfs at `path`, which only those who entered see. `inside` is the way to it from outside."""

    def __init__(self, holder: int, path: Path) -> None:
        self._holder, self.path = holder, path
        self.inside = Path(f"/proc/{holder}/root{path}")

    @property
    def enter(self) -> Callable[[], None]:
        """For `forks.launch(before=...)`."""
        return partial(_enter, self._holder)

    def remount(self, options: str) -> None:
        """Change the size (`size=1m`) or forbid writing (`ro`), for all who are in."""
        self.call("mount", "-o", f"remount,{options}", os.fspath(self.path))

    def call(self, *words: str) -> None:
        """A command run inside."""
        subprocess.run(["nsenter", f"--mount=/proc/{self._holder}/ns/mnt", *words], check=True, capture_output=True)


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Mount]:
    """A tmpfs with these options, gone at the end; skips where the system allows no private mounts."""
    path.mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo ready && exec cat'
    holder = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, "sh", options, os.fspath(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != b"ready\n":
                pytest.skip(f"no private mounts here: {holder.stderr.read().decode().strip()}")
            yield Mount(holder.pid, path)
        finally:
            holder.stdin.close()  # ends it; the mount goes with the last process inside


def _enter(holder: int) -> None:
    where = os.getcwd()
    descriptor = os.open(f"/proc/{holder}/ns/mnt", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)
    os.chdir(where)
