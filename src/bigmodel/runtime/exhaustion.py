"""Recognize the many errors of a system that grants no more memory, threads or processes. Imports no torch."""

from __future__ import annotations

import errno

_THREADS = ("can't start new thread", "thread creation failed", "resource temporarily unavailable")
_MEMORY = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "not enough memory"),
    *("unable to mmap", "failed to map segment", "unable to allocate"),  # of a tensor's file, a library, an array
    *("_alloc_failed", "could not create a primitive"),  # of NVIDIA's libraries, and of oneDNN for its code
)
_NOT_MEMORY = "could not create a primitive descriptor"  # oneDNN lacks the operation
_LIMITS = "; or raise the limits that the system sets (ulimit -u, ulimit -v)"


def describe_exhaustion(error: BaseException) -> tuple[str, str] | None:
    """Return what the system or a library ran out of, as `out of memory`, and further advice; None for other errors."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory", ""
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return "out of memory", ""
        forked = error.errno == errno.EAGAIN and not hasattr(error, "characters_written")  # else a pipe that is full
        return ("out of memory or of processes", _LIMITS) if forked else None
    if not isinstance(error, (RuntimeError, ImportError)):
        return None
    if any(words in text for words in _THREADS):
        return "out of memory or of threads", _LIMITS
    if any(words in text for words in _MEMORY) and _NOT_MEMORY not in text:
        return "out of memory", ""
    return None
