"""Export as a folder, which is written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bigmodel.commands.export_adapter import write_run_adapter
from bigmodel.commands.export_hub import write_run_hub
from bigmodel.errors import ConfigError, StorageError
from bigmodel.inference.predictor import Predictor
from bigmodel.safe_files import fsync_directory

FOLDERS: Mapping[str, Callable[[Predictor, Path, float], str]] = {"hub": write_run_hub, "peft": write_run_adapter}


def export_folder(predictor: Predictor, form: str, given: str | None, tolerance: float) -> str:
    """Write the folder of a format, and return a line about it. Without `given` it lies in the run's directory.

    Raises:
        BigmodelError: what was written differs from the original by more than `tolerance`.
        ConfigError: the format is not for this run, or the folder exists.
        StorageError: it cannot be written.
    """
    output = Path(given) if given is not None else predictor.run_directory / "export" / form
    if output.exists():
        raise ConfigError(f"output: '{output}' exists; name a new folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=output.parent))
        try:
            said = FOLDERS[form](predictor, scratch / output.name, tolerance)
            os.replace(scratch / output.name, output)
            fsync_directory(output.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except ValueError as error:
        raise ConfigError(f"format: {form}: {error}") from error
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error.strerror or error}; set output=...") from error
    return f"{output}: {said}"
