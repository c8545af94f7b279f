"""Describe the surroundings of a run, and tell how they differ on resume."""

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
_OTHER_BITS = "what follows may have other bits than an unbroken run"
_MEANS = {"dataset": "what follows is trained on other data"}


def collect_environment(versions: Mapping[str, str], device: str, fingerprint: str) -> dict[str, Any]:
    """Where a run took place: code, versions, hardware, data and command line, without secrets."""
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
    """Commit, and a hash of the uncommitted changes, of the checkout in the current directory."""

    def ask(*words: str) -> bytes:
        return subprocess.run(["git", *words], capture_output=True, check=True, timeout=10).stdout

    try:
        commit, diff = ask("rev-parse", "HEAD").decode().strip(), ask("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else ""}


def describe_changes(directory: Path, now: Mapping[str, Any]) -> list[str]:
    """How the surroundings of a run that is resumed differ from those it began in, a line each.

    A damaged `environment.json` is written anew, with those of `now`.
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
        return [f"{file}: {state}; written anew, with the surroundings of this start instead of the first"]
    return [
        f"the {name} was {truncate(old)}, is now {truncate(new)}: {_MEANS.get(name, _OTHER_BITS)}"
        for name, old, new in pairs
        if _DEVICE_NUMBER.sub("", old) != _DEVICE_NUMBER.sub("", new)
    ]
