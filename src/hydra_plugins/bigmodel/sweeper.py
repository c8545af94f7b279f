"""Hydra's own sweeper without its rehearsal: our launcher composes and checks every job before the first one starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from hydra_plugins.bigmodel.launcher import BigmodelLauncher


class BigmodelSweeper(BasicSweeper):
    """Every combination of the values. Each job is composed once, not twice, which is slow."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not isinstance(self.launcher, BigmodelLauncher):
            super().validate_batch_is_legal(batch)

    def sweep(self, arguments: list[str]) -> Any:
        for override in OverridesParser.create().parse_overrides(arguments):
            if override.is_interval_sweep():
                raise HydraException(f"{override.get_key_element()}: an interval is searched: add hydra/sweeper=optuna")
        return super().sweep(arguments)


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
