"""Start OpenMP's threads while it can still be said that there are too few.

Where the system grants libgomp no more threads, which it asks for at the first operation that is large enough, it ends
the process, and no error can be caught.
"""

from __future__ import annotations

import threading

import torch

from bigmodel.errors import OutOfMemoryError

_GRAIN = 1 << 16  # elements of an operation for each thread; torch divides one from 32,768 elements


def start_threads(count: int) -> None:
    """Start `count` threads of Python's, and where that succeeds, the `count - 1` of OpenMP in their place; the one
    more will save checkpoints. Costs a millisecond.

    Raises:
        OutOfMemoryError: the system grants fewer.
    """
    release = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=release.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise OutOfMemoryError(
            f"out of memory or of threads before the model is made: the system grants {len(started)} of {count} more; "
            "lower device.threads, or raise the limits that the system sets (ulimit -u, ulimit -v)"
        ) from error
    finally:
        release.set()
        for thread in started:
            thread.join()
    torch.zeros(count * _GRAIN).add_(1)
