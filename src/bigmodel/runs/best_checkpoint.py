"""Choose the checkpoint of a run to evaluate, predict with or export."""

from __future__ import annotations

import json
from pathlib import Path

from bigmodel.errors import ConfigError, StorageError
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint import Checkpoint
from bigmodel.runs.checkpoint_path import checkpoint_path, has_checkpoint_prefix
from bigmodel.runs.manifest import MANIFEST
from bigmodel.runs.signature import check_signature
from bigmodel.runs.zipped import load_zipped
from bigmodel.safe_files import is_there, kind_of, read_text


def load_best_checkpoint(path: Path, given: str) -> tuple[Checkpoint, list[str]]:
    """Load a run's best checkpoint, else the newest that verifies; `path` may also be a checkpoint itself, a folder
    that was shared, or a .zip of one.

    Returns the checkpoint and warnings. `given` is the path as the user typed it.

    Raises:
        ConfigError: there is no run.
        StorageError: the given checkpoint is damaged, or none verifies.
    """
    root = path / "checkpoints"
    try:
        if has_checkpoint_prefix(path) and path.is_dir():
            return checkpoint.load(path), []
        if is_there(path / MANIFEST) and not is_there(root):
            signed = check_signature(path, given)
            return checkpoint.load(path), signed
        if path.suffix == ".zip" and path.is_file():
            return load_zipped(path)
        if not is_there(root) and is_there(path / "config.yaml"):
            raise ConfigError(f"run: '{given}' has saved no checkpoint")
        if not is_there(root):
            raise ConfigError(
                f"run: there is no run at '{given}'; runs lie under outputs/, each with a folder checkpoints"
            )
        if not root.is_dir():
            raise StorageError(f"{root}: is {kind_of(root.stat().st_mode)}, not a folder of checkpoints")
    except OSError as error:
        raise StorageError(f"{root}: {error.strerror or error}") from error
    checkpoint.list_checkpoints(root)  # raises StorageError if the folder may not be read
    warnings: list[str] = []
    try:
        best = json.loads(read_text(root / "best.json"))
        found = checkpoint.load(checkpoint_path(root, int(best["step"])))
        if {key: found.state["best"][key] for key in ("step", "value")} == best:
            return found, []
        warnings.append(f"{root / 'best.json'}: does not agree with {found.path}; using the newest checkpoint")
    except FileNotFoundError:
        pass  # a run without validation data, or one stopped before its first evaluation
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        warnings.append(f"{root / 'best.json'}: cannot be read ({error}); using the newest checkpoint")
    except StorageError as error:
        warnings.append(f"{error}; this was the best checkpoint, using the newest that verifies")
    newest, newer_warnings = checkpoint.load_newest(root)
    if newest is None:
        raise StorageError(f"{given}: no checkpoint can be used", *newer_warnings)
    return newest, warnings + newer_warnings
