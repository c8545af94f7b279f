"""Listener that writes TensorBoard events into the run directory; needs the optional dependency `tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bigmodel.events import Finished
from bigmodel.listeners.metrics_file import flatten_event
from bigmodel.safe_files import own_folder, read_text

__all__ = ["TensorBoard"]

_HIDDEN_KEYS = frozenset({"data_dir", "output_dir", "listeners", "dry_run", "profile"})  # not hyperparameters


class TensorBoard:
    """Writes scalars as `<split>/<metric>` over steps, the config as text, and finally the hyperparameters.

    The hyperparameters come with the last metrics, for TensorBoard's table of runs.

    Raises:
        ValueError: tensorboard is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("tensorboard is not installed: pip install 'bigmodel-train[tensorboard]'") from None
        self._writer: Any = SummaryWriter(str(own_folder(directory / "tensorboard")))
        self._last: dict[str, float] = {}
        text = read_text(directory / "config.yaml") if (directory / "config.yaml").exists() else ""
        self._config = yaml.safe_load(text) or {}
        code_block = "\n".join(f"    {line}" for line in text.splitlines())  # in Markdown
        self._writer.add_text("config", code_block)

    def __call__(self, event: object) -> None:
        record = flatten_event(event)
        for name, value in record.items():
            if isinstance(value, float) and name != "epoch":
                tag = f"{record['split']}/{name}"
                self._writer.add_scalar(tag, value, record["step"])
                self._last[tag] = value
        if isinstance(event, Finished) and event.summary.get("best"):
            best = event.summary["best"]
            tag = f"best/{event.summary['monitor']}"
            self._writer.add_scalar(tag, best["value"], best["step"])
            self._last[tag] = float(best["value"])

    def close(self) -> None:
        """Write the hyperparameters, however the run ended."""
        from torch.utils.tensorboard.summary import hparams

        if self._last:
            for summary in hparams(dict(_flatten_config("", self._config)), self._last):
                self._writer.file_writer.add_summary(summary)
        self._writer.close()


def _flatten_config(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str | float | bool]]:
    """Yield dotted keys with values that TensorBoard can show; a node's target has the node's key."""
    for key, value in node.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if path in _HIDDEN_KEYS:
            continue
        if key == "_target_":
            yield prefix, str(value)
        elif isinstance(value, Mapping):
            yield from _flatten_config(path, value)
        elif isinstance(value, (bool, int, float, str)):
            yield path, value
        elif value is not None:
            yield path, json.dumps(value, default=str)
