"""Names of checkpoint folders: `checkpoints/step-00000050`."""

from __future__ import annotations

from pathlib import Path

_PREFIX = "step-"


def checkpoint_path(root: Path, step: int) -> Path:
    """Return the folder of the checkpoint of `step` below `root`."""
    return root / f"{_PREFIX}{step:08d}"


def step_of(path: Path) -> int | None:
    """Return the step in a checkpoint folder's name; None for any other name."""
    digits = path.name.removeprefix(_PREFIX)
    is_step = has_checkpoint_prefix(path) and digits.isascii() and digits.isdigit()
    return int(digits) if is_step else None


def has_checkpoint_prefix(path: Path) -> bool:
    """Whether a name begins as a checkpoint's, such as that of a copy, `step-00000050-best`."""
    return path.name.startswith(_PREFIX)
