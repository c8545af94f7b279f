"""Block the network while objects are built on behalf of a file that may be a stranger's.

torchvision's segmentation models fetch a backbone by default, and a checkpoint may name any of them. Python tells an
audit hook of every look-up and connection before it is made, whichever library makes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate

_WHERE = {  # which argument of an event says where to
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "socket.getnameinfo": 0,
    "urllib.Request": 0,
    "http.client.connect": 1,
    "ftplib.connect": 1,
    "smtplib.connect": 1,
}
_hints: list[str | None] = []  # the innermost last; None: the network is allowed
_installed = False


class NetworkRefused(ConfigError):
    """Building from a stranger's file tried to reach the network."""


@contextmanager
def offline(hint: str = "") -> Iterator[None]:
    """Refuse every connection of this process; `hint` says in the error how else to get what is missing.

    Raises:
        NetworkRefused: a connection was about to be made, or a name to be looked up.
    """
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # it cannot be taken away again, and costs a look at the event's name
        _installed = True
    with _state(hint):
        yield


@contextmanager
def online() -> Iterator[None]:
    """Allow connections again, inside `offline`: for code that the command line trusts."""
    with _state(None):
        yield


@contextmanager
def _state(hint: str | None) -> Iterator[None]:
    _hints.append(hint)
    try:
        yield
    finally:
        _hints.pop()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _hints or _hints[-1] is None or event not in _WHERE:
        return
    place = _WHERE[event]
    where = arguments[place] if len(arguments) > place else ""
    if event.startswith("socket.") and place and not isinstance(where, tuple):
        return  # a socket of this machine, as data workers have
    shown = truncate(where[0] if isinstance(where, tuple) and where else where, 80)
    raise NetworkRefused(
        f"would reach the network ({shown}), which nothing that is built from a run's files may{_hints[-1]}"
    )
