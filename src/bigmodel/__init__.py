"""Train models from YAML. `load` opens a trained run; everything else is the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigmodel.inference import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(run: str) -> Predictor:
    """Open a run directory (its best checkpoint) or one checkpoint directory for inference on the CPU.

    Raises:
        bigmodel.errors.StorageError: there is no checkpoint that verifies.
        bigmodel.errors.ConfigError: the checkpoint's config names a target that is not trusted.
    """
    from bigmodel.inference import load as _load  # imports torch, which `import bigmodel` must not cost

    return _load(run)
