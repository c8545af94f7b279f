"""Hydra sweeper of `hydra/sweeper=optuna`: parse the overrides into a search space and base configs.

Hydra imports this file at every start, so it imports nothing heavy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from bigmodel.config.override_parser import make_parser
from hydra_plugins.bigmodel.launcher import BigmodelLauncher


class OptunaSweeper(Sweeper):
    """Hydra sweeper: parses the space, runs `bigmodel.sweeps.search` with the launcher's `jobs` and `on_failure`."""

    def __init__(self, params: Any, **options: Any) -> None:
        self._params = dict(params or {})
        self._options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._task = task_function
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search the space of the arguments and `hydra.sweeper.params`.

        Raises:
            HydraException: another application than bigmodel-train uses this sweeper, or with another launcher.
        """
        search, launcher = getattr(self._task, "search", None), self._launcher
        if search is None or not isinstance(launcher, BigmodelLauncher):
            raise HydraException("hydra/sweeper=optuna goes with bigmodel-train and its own launchers only")
        loader = self._context.config_loader
        parsed = make_parser(loader).parse_overrides(
            [*(f"{key}={text}" for key, text in self._params.items()), *arguments]
        )
        overrides = {override.get_key_element(): override for override in parsed}  # the command line overrides `params`
        groups = {name for name, override in overrides.items() if loader.get_group_options(override.key_or_group)}

        def bases(fixed: Sequence[str], alternatives: Sequence[Sequence[str]]) -> Iterator[DictConfig]:
            """Compose the config of the fixed overrides with each combination of the alternatives."""
            combinations = [[*fixed, *combination] for combination in itertools.product(*alternatives)]
            return (composed for _, _, composed in launcher.compose_jobs(combinations, 0))

        search(Path(self._config.hydra.sweep.dir), launcher.launcher_options, self._options, overrides, groups, bases)
