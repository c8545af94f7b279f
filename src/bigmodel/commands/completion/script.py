"""The script that a shell evaluates to complete the tool's commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bigmodel.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")


def completion_script(shell: str, commands: Sequence[str]) -> str:
    """Return the script for a shell. It asks the Python that wrote it, wherever the command line is typed.

    Raises:
        ConfigError: there is no script for the shell.
    """
    if shell not in SHELLS:
        raise ConfigError(f"--completion: there is no shell '{shell}'; choices: {', '.join(SHELLS)}")
    template = (Path(__file__).parent / f"completion.{shell}").read_text(encoding="utf-8")
    # -P: a folder that happens to be called as a package, where somebody presses TAB, is never imported
    asking = [sys.executable, "-P", "-m", "bigmodel", "train", "--complete", shell]
    quoted = map(_quote_for_fish, asking) if shell == "fish" else map(shlex.quote, asking)
    return template.replace("@ASK@", " ".join(quoted)).replace("@COMMANDS@", " ".join(commands))


def _quote_for_fish(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"
