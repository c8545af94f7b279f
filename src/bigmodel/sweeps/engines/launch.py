"""Open the engine that runs a sweep's jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigmodel.sweeps.engines.base import Engine


def open_engine(path: Path, lock_fd: int, engine: str, options: Mapping[str, Any]) -> Engine:
    """Open the engine of the sweep at `path`; processes of this machine inherit the lock's descriptor.

    Raises:
        ConfigError: the engine is not installed, or its commands are not on this machine.
    """
    if engine == "slurm":
        from bigmodel.sweeps.engines.slurm import SlurmEngine

        return SlurmEngine(path, options)
    if engine == "ray":
        from bigmodel.sweeps.engines.ray import RayEngine

        return RayEngine(path, options)
    from bigmodel.sweeps.engines.processes import ProcessEngine

    return ProcessEngine(lock_fd)
