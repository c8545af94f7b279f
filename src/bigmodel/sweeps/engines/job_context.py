"""Context of every job's process in a sweep: it travels as JSON to the fork server and to other machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bigmodel.redaction import redact_arguments
from bigmodel.runtime.gpus import Gpu


@dataclass(frozen=True)
class JobContext:
    """A sweep as its jobs see it.

    `path` is the sweep's directory, relative to `cwd` on another machine; `threads` are for each job; `gpus` are those
    of this machine that jobs share; `command` and `imports` are the sweep's `sys.argv` and `sys.path`; `modules` are
    imported before the first job is forked; `environment` holds variables for another machine.
    """

    path: str
    threads: int = 1
    gpus: tuple[Gpu, ...] = ()
    trust: tuple[str, ...] = ()
    is_resumed: bool = True
    command: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    cwd: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The sweep's directory, seen from any working directory unless `cwd` is relative."""
        return Path(self.cwd, self.path)

    def for_remote(self, has_own_gpus: bool) -> JobContext:
        """Return the context for a machine that shares the files, but not the working directory and the environment.

        With `has_own_gpus` the scheduler assigns GPUs, and the jobs claim none.
        """
        own = {name: value for name, value in os.environ.items() if name.startswith("BIGMODEL_")}
        command = tuple(redact_arguments(self.command))
        gpus = () if has_own_gpus else self.gpus
        return replace(self, command=command, gpus=gpus, cwd=os.getcwd(), environment=own)

    def apply(self) -> None:
        """Give this process the sweep's command line and import path."""
        sys.argv, sys.path[:] = [*self.command], [*self.imports]

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` accepts."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobContext:
        """Return the context that `to_json` wrote, after it went through JSON."""
        lists = {key: tuple(item) for key, item in value.items() if isinstance(item, list)}
        return cls(**{**value, **lists, "gpus": tuple(Gpu(**gpu) for gpu in value["gpus"])})
