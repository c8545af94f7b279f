"""Hydra's basic sweeper without its dry composition: our launcher composes and checks all jobs before one starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from bigmodel.config.override_parser import make_parser, swept_values
from hydra_plugins.bigmodel.launcher import BigmodelLauncher


class BigmodelSweeper(BasicSweeper):
    """Runs every combination of the values. Each job is composed once; Hydra's own sweeper composes it twice."""

    def __init__(self, max_batch_size: int | None = None, params: Any = None, **unknown: Any) -> None:
        super().__init__(max_batch_size, params)
        self._unknown = unknown

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not isinstance(self.launcher, BigmodelLauncher):
            super().validate_batch_is_legal(batch)

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Return the overrides of each job in batches, with the quotes of `choice('a b', ...)`, which Hydra drops."""
        values = {override.get_key_element(): swept_values(override, None) for override in overrides}
        jobs = [list(job) for job in itertools.product(*values.values())]
        return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(jobs, max_batch_size or len(jobs))]

    def sweep(self, arguments: list[str]) -> Any:
        for key in self._unknown:
            raise HydraException(f"hydra.sweeper.{key}: belongs to a search; add hydra/sweeper=optuna")
        assert self.hydra_context is not None
        for override in make_parser(self.hydra_context.config_loader).parse_overrides(arguments):
            if override.is_interval_sweep():
                raise HydraException(f"{override.get_key_element()}: an interval is searched: add hydra/sweeper=optuna")
        if not isinstance(self.launcher, BigmodelLauncher):
            return super().sweep(arguments)
        return self._launch_batches(arguments)

    def _launch_batches(self, arguments: list[str]) -> Any:
        """Launch the jobs without creating a directory: the launcher does so once all configs are valid."""
        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        overrides = make_parser(loader).parse_overrides([*self._parse_config(), *arguments])
        returns, first = [], 0
        for batch in self.split_arguments(overrides, self.max_batch_size):
            returns.append(self.launcher.launch(batch, initial_job_idx=first))
            first += len(batch)
        return returns


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="bigmodel",
    provider="bigmodel-train",
    node={
        "_target_": "hydra_plugins.bigmodel.sweeper.BigmodelSweeper",
        "max_batch_size": None,
        "params": None,
    },
)
