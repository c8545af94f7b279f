"""Messages between ranks through the store in which they meet: who is there, who failed first, who hangs.

torchrun gives the ranks that it starts again the store of their first start, with all that was written there: so the
ranks agree on a name that is new, below which they write. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

from bigmodel.runtime.launch import Place

_LEADER, _FINAL = "leader", "final"  # keys that outlive a start: rank 0's name for it, the exit code of the last
_FAILURES, _WORDS, _WAITS = "failures", "words", "waits/"  # keys of one start
_LOOK_S, _LATE_S = 0.02, 2.0


class Store(Protocol):
    """The used methods of torch's stores; RuntimeError if the store is gone, or `get` has waited for too long."""

    def get(self, key: str) -> bytes: ...

    def set(self, key: str, value: str) -> None: ...

    def add(self, key: str, value: int) -> int: ...

    def check(self, keys: list[str]) -> bool: ...


def agree(store: Store, place: Place) -> str:
    """Return a name that all ranks of this start have, and those of no earlier one.

    Each rank answers to the name of rank 0 with one of its own; a name counts for it once rank 0 has repeated both.
    """
    own = secrets.token_hex(8)
    if place.rank == 0:
        store.set(_LEADER, own)
        answers = [store.get(f"{own}/{rank}").decode() for rank in range(1, place.size)]
        store.set(f"{own}/all", " ".join(answers))
        return own
    while True:
        name = store.get(_LEADER).decode()
        store.set(f"{name}/{place.rank}", own)
        if store.check([f"{name}/all"]) and own in store.get(f"{name}/all").decode().split():
            return name
        time.sleep(_LOOK_S)


def note_final(store: Store | None, code: int) -> None:
    """Note that a failure would repeat, for ranks that are started again."""
    if store is not None:
        with contextlib.suppress(RuntimeError):
            store.set(_FINAL, str(code))


def final_code(store: Store) -> int | None:
    """Return the exit code of an earlier start's failure that would repeat."""
    return int(store.get(_FINAL)) if store.check([_FINAL]) else None


def is_first(store: Store | None, place: Place, failure: str) -> bool:
    """Whether no other rank has failed before; if so, the others can now read what this one says.

    Ranks of one machine may fail before they meet: of them, only one can make a file.
    """
    with contextlib.suppress(RuntimeError, OSError):  # the store ended with its rank; the disk is full
        if place.meeting is not None:
            try:
                os.close(os.open(f"{place.meeting}-failed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
        elif store is not None and store.add(_FAILURES, 1) > 1:
            return False
        if store is not None:
            store.set(_WORDS, failure)
    return True


def words_for_lost(store: Store | None, place: Place, error: str) -> str:
    """Return why a collective that has raised `error` cannot go on: what the first rank has said, or which hangs."""
    late = _silent_ranks(store, place, is_late="imed out" in error)
    if (first := _first_words(store)) is not None:
        return f"another rank has failed: {first}"
    if late:
        names = f"rank{'s' * (len(late) > 1)} {', '.join(map(str, late))}"
        return f"{names} gave no sign of life for device.timeout seconds"
    return f"another rank has ended, so this one cannot go on ({error})"


def _first_words(store: Store | None) -> str | None:
    """Return what the first rank that failed has said."""
    if store is not None:
        with contextlib.suppress(RuntimeError):
            if store.check([_WORDS]):
                return store.get(_WORDS).decode()
    return None


def _silent_ranks(store: Store | None, place: Place, is_late: bool) -> Sequence[int]:
    """Tell the others that this rank waits for them; if it has done so for too long, return those that do not."""
    if store is None:
        return []
    try:
        store.set(f"{_WAITS}{place.rank}", "")
        if not is_late:
            return []
        time.sleep(_LATE_S)  # they have not begun to wait at the same moment
        return [rank for rank in range(place.size) if not store.check([f"{_WAITS}{rank}"])]
    except RuntimeError:
        return [0] if is_late else []  # which has the store
