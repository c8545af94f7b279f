"""Train models from YAML and predict with them.

`train` does what `bigmodel-train` does, `runs` lists what was trained, and `load` opens a trained run.

Importing this package is cheap: the first call imports torch and Hydra.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    from bigmodel.inference.predictor import Predictor
    from bigmodel.python_api import Run, Runs

__version__ = "0.1.0"
__all__ = ["__version__", "load", "runs", "train"]


def load(run: str | os.PathLike[str], *, device: str = "cpu", trust: Sequence[str] = ()) -> Predictor:
    """Open a run directory (its best checkpoint) or one checkpoint directory for inference.

    `device` is a torch name, as `cpu`, `cuda:1` or `mps`, or `auto`. `trust` names your own packages whose models the
    run may build.

    Raises:
        bigmodel.errors.ConfigError: there is no such run or device, or the checkpoint's config names a target that is
            not trusted.
        bigmodel.errors.StorageError: no checkpoint verifies.
    """
    from bigmodel.inference.predictor import open_run  # imports torch, which `import bigmodel` avoids

    return open_run(run, str(device), trust)


@overload
def train(overrides: Sequence[str] = ..., *, dry_run: Literal[False] = ...) -> Run: ...
@overload
def train(overrides: Sequence[str] = ..., *, dry_run: Literal[True]) -> None: ...


def train(overrides: Sequence[str] = (), *, dry_run: bool = False) -> Run | None:
    """Train one model in this process, exactly as `bigmodel-train` does with the same words, and return its run.

    - `overrides`: arguments of the command line, as `["model=mlp", "epochs=3"]`, `resume=RUN`, `trust=[my_package]` or
      `--config-dir DIR`. Sweeps (`-m`, `seeds=`) need the command line.
    - `dry_run`: print the plan and train nothing; return None.

    Afterwards signal handlers, torch's random state, threads and switches, `sys.argv` and the environment are restored.
    An interrupt (Ctrl-C) saves and raises `Interrupted`; a second one stops at once.

    Raises:
        bigmodel.errors.BigmodelError: where the command line would print an error; `code` is its exit code.
    """
    from bigmodel.python_api import train as _train

    return _train(overrides, dry_run=dry_run)


class _CallableFolder(ModuleType):
    """The folder bigmodel/runs, which is the function `bigmodel.runs` too.

    They have one name, and importing anything in the folder would put it in the function's place.
    """

    def __call__(
        self,
        directory: str | os.PathLike[str] = "outputs",
        *conditions: str,
        sort: str = "age",
        limit: int | None = None,
    ) -> Runs:
        """List the runs under a directory, those of sweeps included, as `bigmodel-runs` does.

        - `directory`: an `output_dir`, a sweep or a run.
        - `conditions`: as `"model=cnn"`, `"optim.lr>0.1"` or `"test/accuracy>=0.9"`; all must hold.
        - `sort`: a key, `-key` reverses; by a metric the best come first, by age the newest.

        Raises:
            bigmodel.errors.ConfigError: there is no such directory, or a condition cannot be parsed or names a key that
                no run has.
        """
        from bigmodel.python_api import runs as list_runs

        return list_runs(directory, conditions, sort, limit)


if TYPE_CHECKING:
    runs = _CallableFolder("runs")
else:
    from bigmodel import runs

    runs.__class__ = _CallableFolder
