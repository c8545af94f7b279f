"""Threads that take turns, so that each can run a whole job by the ordinary code, and meet where work is shared.

One thread runs at a time: there is one random generator and one interpreter lock, and torch lets go of the latter at
every operation. When all wait in `ask`, the conductor, which is the main thread, answers some of them at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Question:
    """What a thread waits for. `order` says which are answered first, `kind` which can be answered together."""

    order: int
    kind: tuple[Any, ...]
    asker: Any
    content: Any
    answer: Any = None
    gate: threading.Lock = field(default_factory=threading.Lock)


class Turns:
    """Runs threads until all have ended. `answer` is given questions of one kind and sets `answer` of each."""

    def __init__(self, answer: Callable[[Sequence[Question]], None]) -> None:
        self._answer = answer
        self._ready: deque[threading.Lock] = deque()
        self._mutex = threading.Lock()  # for what threads touch that come back from waiting for a disk
        self._apart, self._nobodys = 0, False
        self._all_wait = _closed()
        self._questions: list[Question] = []

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        """Call each in a thread of its own; none may raise."""
        threads = [threading.Thread(target=self._one, args=(work, self._queued(_closed()))) for work in works]
        for thread in threads:
            thread.start()
        while True:
            self._pass_on()
            self._all_wait.acquire()
            if not self._questions:
                break
            first = min(self._questions, key=lambda question: question.order)
            chosen = [q for q in self._questions if (q.order, q.kind) == (first.order, first.kind)]
            self._questions = [question for question in self._questions if question not in chosen]
            self._answer(chosen)
            for question in chosen:
                self._queued(question.gate)
        for thread in threads:
            thread.join()

    def ask(self, question: Question) -> Any:
        """The answer. An exception that is one is raised."""
        question.gate.acquire()
        self._questions.append(question)
        self._pass_on()
        question.gate.acquire()
        if isinstance(question.answer, BaseException):
            raise question.answer
        return question.answer

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the others run meanwhile: for waiting."""
        with self._mutex:
            self._apart += 1
        self._pass_on()
        try:
            yield
        finally:
            gate = None
            with self._mutex:
                self._apart -= 1
                if self._nobodys:
                    self._nobodys = False
                else:
                    gate = self._queued(_closed())
            if gate is not None:
                gate.acquire()

    def _one(self, work: Callable[[], None], gate: threading.Lock) -> None:
        gate.acquire()
        try:
            work()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """End this thread's turn."""
        with self._mutex:
            if self._ready:
                self._ready.popleft().release()
            elif self._apart:
                self._nobodys = True
            else:
                self._all_wait.release()

    def _queued(self, gate: threading.Lock) -> threading.Lock:
        self._ready.append(gate)
        return gate


def _closed() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate
