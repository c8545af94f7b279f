"""Hydra launchers of `bigmodel-train -m`: compose all jobs, then let `bigmodel.sweeps` run them.

The jobs run in processes of this machine by default, else through Slurm or Ray. Hydra imports this file at every start,
so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from bigmodel.config.coded_choices import LAUNCHERS


class BigmodelLauncher(Launcher):
    """Runs `jobs` at a time, each in its own process; after a failure `continue`, `stop`, or `retry` that job once."""

    def __init__(self, engine: str, jobs: Any, on_failure: Any, **options: Any) -> None:
        self.launcher_options = {"engine": engine, "jobs": jobs, "on_failure": on_failure, "options": options}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._task = task_function
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; a job returns its best monitored metric, or None if it failed: an error would end the sweep.

        Raises:
            HydraException: another application than bigmodel-train uses this launcher.
        """
        launch = getattr(self._task, "launch", None)
        if launch is None:
            raise HydraException("this launcher runs bigmodel-train only")
        jobs = self.compose_jobs(job_overrides, initial_job_idx)
        values = launch(Path(self._config.hydra.sweep.dir), jobs, self.launcher_options)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)
            for overrides, value in zip(job_overrides, values, strict=True)
        ]

    def compose_jobs(
        self, job_overrides: Sequence[Sequence[str]], first: int
    ) -> Iterator[tuple[int, Sequence[str], DictConfig]]:
        """Yield number, overrides and config of each job; `HydraConfig` is that of the job last yielded."""
        before = HydraConfig.instance().cfg
        try:
            for number, overrides in enumerate(job_overrides, first):
                composed = self._context.config_loader.load_sweep_config(self._config, [*overrides])
                with open_dict(composed):
                    composed.hydra.job.id, composed.hydra.job.num = str(number), number
                HydraConfig.instance().set_config(composed)
                yield number, overrides, composed
        finally:
            HydraConfig.instance().cfg = before


for _engine, _options in LAUNCHERS.items():
    ConfigStore.instance().store(
        group="hydra/launcher",
        name=_engine,
        provider="bigmodel-train",
        node={
            "_target_": "hydra_plugins.bigmodel.launcher.BigmodelLauncher",
            "engine": _engine,
            "jobs": "auto",
            "on_failure": "continue",
            **_options,
        },
    )
