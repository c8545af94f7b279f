"""TensorBoard events in the run directory; an optional extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigmodel.durable import own_folder
from bigmodel.listeners.metrics_file import flat

__all__ = ["TensorBoard"]


class TensorBoard:
    """Scalars as `<split>/<metric>` over steps. Raises ValueError where tensorboard is not installed."""

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("tensorboard is not installed: pip install 'bigmodel-train[tensorboard]'") from None
        self._writer: Any = SummaryWriter(str(own_folder(directory / "tensorboard")))

    def __call__(self, event: object) -> None:
        record = flat(event)
        for name, value in record.items():
            if isinstance(value, float) and name != "epoch":
                self._writer.add_scalar(f"{record['split']}/{name}", value, record["step"])

    def close(self) -> None:
        self._writer.close()
