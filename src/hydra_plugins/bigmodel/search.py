"""`hydra/sweeper=optuna`: from Hydra's words to a search space and the configs it is laid over.

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
    """Takes the space apart; `bigmodel.sweeps.search` does the rest, with the launcher's `jobs` and `on_failure`."""

    def __init__(self, params: Any, **given: Any) -> None:
        self._params, self._given = dict(params or {}), given

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Raises HydraException: it is not bigmodel-train that runs it, or not with its own launcher."""
        search, launcher = getattr(self._task, "search", None), self._launcher
        if search is None or not isinstance(launcher, BigmodelLauncher):
            raise HydraException("hydra/sweeper=optuna goes with bigmodel-train and its own launchers only")
        loader = self._context.config_loader
        parsed = make_parser(loader).parse_overrides(
            [*(f"{key}={text}" for key, text in self._params.items()), *arguments]
        )
        overrides = {override.get_key_element(): override for override in parsed}  # the command line comes last
        groups = {name for name, override in overrides.items() if loader.get_group_options(override.key_or_group)}

        def bases(words: Sequence[str], alternatives: Sequence[Sequence[str]]) -> Iterator[DictConfig]:
            """The config of the words with each combination of the alternatives."""
            combinations = [[*words, *combination] for combination in itertools.product(*alternatives)]
            return (composed for _, _, composed in launcher.composed(combinations, 0))

        search(Path(self._config.hydra.sweep.dir), launcher.launcher_options, self._given, overrides, groups, bases)
