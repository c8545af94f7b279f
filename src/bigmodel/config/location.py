"""Where the YAML groups lie: inside an installed wheel, or at the root of a checkout."""

from __future__ import annotations

from pathlib import Path


def conf_directory() -> Path:
    """The directory with `train.yaml` and the groups."""
    package = Path(__file__).resolve().parents[1]
    inside, checkout = package / "conf", package.parents[1] / "conf"
    return inside if inside.is_dir() else checkout
