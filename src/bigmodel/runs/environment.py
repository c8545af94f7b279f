"""Environment of a run: code, versions, hardware and data; and what has changed when it is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bigmodel.formatting import truncate
from bigmodel.redaction import redact_arguments
from bigmodel.safe_files import read_text, write_json

_DEVICE_NUMBER = re.compile(r"(?<=^cuda):\d+")
_OTHER_BITS = "later steps may differ from those of an unbroken run in the last bits"
_CONSEQUENCES = {"dataset": "later steps are trained on other data"}


def collect_environment(versions: Mapping[str, str], device: str, fingerprint: str) -> dict[str, Any]:
    """Return the content of `environment.json`, without secrets. `fingerprint` identifies the data."""
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": redact_arguments(sys.argv),
        "directory": os.getcwd(),
        "git": _git(),
        "python": platform.python_version(),
        "versions": dict(versions),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "dataset": fingerprint,
    }


def _git() -> dict[str, str] | None:
    """Return the commit of the current directory's repository and a hash of uncommitted changes, or None."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], capture_output=True, check=True, timeout=10).stdout

    try:
        commit, diff = git("rev-parse", "HEAD").decode().strip(), git("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else ""}


def describe_changes(directory: Path, now: Mapping[str, Any]) -> list[str]:
    """Return a line for each difference between the environment that a run began in and `now`.

    A missing or damaged `environment.json` is replaced with `now`.
    """
    file = directory / "environment.json"
    try:
        began = json.loads(read_text(file))
        pairs = [(name, str(began[name]), str(now[name])) for name in ("dataset", "device")]
        pairs += [
            (f"version of {name}", str(began["versions"].get(name)), text) for name, text in now["versions"].items()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        write_json(file, now)
        state = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        return [f"{file}: {state}; rewritten with the environment of this start instead of the first"]
    return [
        f"the {name} was {truncate(old)}, is now {truncate(new)}: {_CONSEQUENCES.get(name, _OTHER_BITS)}"
        for name, old, new in pairs
        if _DEVICE_NUMBER.sub("", old) != _DEVICE_NUMBER.sub("", new)
    ]
