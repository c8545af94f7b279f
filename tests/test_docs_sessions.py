"""What the pages work through, from files on disk to a prediction, is done in a shell, block by block."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pages import sessions

OPEN_WEIGHTS = Path("models", "smollm2-135m-instruct.q4_1.gguf")  # in the data, as in the page
OWN_TESTS = ("docs/python.md", "docs/contributing.md")  # test_python.py and test_contributing.py run their blocks
SESSIONS = {name: blocks for name, blocks in sessions().items() if not name.startswith(OWN_TESTS)}
COMMANDS = ("train", "evaluate", "predict", "export", "compare", "runs", "report")
END = "end of block"


def script(blocks):
    """The blocks as one shell script that stops at the first failure."""
    lines = ["set -euo pipefail"]
    for block in blocks:
        if block.file:
            lines += [f"mkdir -p $(dirname {block.file})", f"cat > {block.file} <<'FILE'", block.text + "FILE"]
        elif block.language == "python":
            lines += ["python - <<'PYTHON'", block.text + "PYTHON"]
        elif block.language == "sh":
            lines += block.lines
        lines.append(f"echo {END}")
    return "\n".join(lines)


def without_numbers(text):
    """What stays the same on another machine."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "0", text)).strip()


@pytest.fixture
def environment(tmp_path):
    """The commands on the path, of this Python, whatever is installed beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    words = {f"bigmodel-{name}": f'-m bigmodel {name} "$@"' for name in COMMANDS} | {"python": '"$@"'}
    for name, rest in words.items():
        (folder / name).write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {rest}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def test_the_worked_examples_are_there():
    assert {name.partition(": ")[2] for name in SESSIONS if name.startswith("docs/data.md")} >= {
        *("Pictures in folders", "A table", "Texts with labels", "Sounds in folders")
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_works_and_prints_what_the_page_shows(name, tmp_path, environment):
    work = tmp_path / "work"
    work.mkdir()
    if str(OPEN_WEIGHTS) in script(SESSIONS[name]):
        pytest.importorskip("gguf")
        file = Path(os.environ.get("BIGMODEL_DATA_DIR", "data")).absolute() / OPEN_WEIGHTS
        if not file.is_file():
            pytest.skip(f"there is no {file}")
        (work / "models").symlink_to(file.parent)
        (work / "story.txt").write_text("Once upon a time there was a model. " * 20, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", script(SESSIONS[name])], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split(f"{END}\n")
    for number, block in enumerate(SESSIONS[name]):
        if block.language == "text":
            assert without_numbers(block.text) in without_numbers(printed[number - 1])
