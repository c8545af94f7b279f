"""Links, pipes and folders in the place of what a run, a sweep or an export writes: nothing outside changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from campaign import chosen, count
from conftest import TINY, call
from forks import finished, launch
from warm import _forked_templates, only_sweep

RUN = (*TINY, "device.threads=1", "listeners=[csv]")
RESUMED = ("resume=here/run", "epochs=3", "profile=true")
SWEEP = ("-m", "resume=here/sweep")
COMMANDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # what is written, the command, and the names that it writes
    "run": (
        "train",
        RESUMED,
        (
            *(".lock", "config.yaml", "train.log", "metrics.jsonl", "metrics.csv", "summary.json", "profile.txt"),
            *("trace.json", "environment.json", "checkpoints", "checkpoints/last.json", "checkpoints/best.json"),
            *("checkpoints/step-00000009", "checkpoints/.tmp-0", ".tmp-0"),
        ),
    ),
    "sweep": (
        "train",
        SWEEP,
        (
            *(".lock", "sweep.json", "journal.jsonl", "results.csv", ".tmp-results.csv", "jobs", "jobs/0.yaml"),
            *("jobs/0.txt", "0", "0/.lock", "0/train.log", "0/summary.json", "0/checkpoints", "plots"),
        ),
    ),
    "look": ("train", (*SWEEP, "dry_run=true"), (".lock", "journal.jsonl", "jobs", "0")),
    "export": (
        "export",
        ("run=here/run", "format=safetensors"),
        ("export", "export/model.safetensors", "export/model.safetensors.json"),
    ),
}
KINDS = ("link to a file", "link to a folder", "dangling link", "loop", "hard link", "pipe", "socket", "folder")
SECONDS = 30


def _plant(kind: str, place: Path, outside: Path) -> None:
    """Put that in the place of whatever is there. Outside lie copies of what it would be taken for."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    if kind == "link to a file":
        place.symlink_to(outside / "precious")
    elif kind == "link to a folder":
        place.symlink_to(outside / "folder")
    elif kind == "dangling link":
        place.symlink_to(outside / "not-there-yet")
    elif kind == "loop":
        place.symlink_to(place.name)
    elif kind == "hard link":
        os.link(outside / "precious", place)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(place.parent)  # a socket's name has a hundred letters at most
            try:
                server.bind(place.name)
            finally:
                os.chdir(here)
    else:
        place.mkdir()
        (place / "kept").write_text("alive")


def _snapshot(folder: Path) -> Mapping[str, Any]:
    """Every name below, with what it holds."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        of = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (of.st_mode, of.st_size, content)
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, an export of it, and a sweep of which one job is left."""
    place = tmp_path_factory.mktemp("sound")
    answer = call(*RUN, cwd=place)
    assert answer.code == 0, answer.err
    answer.run.rename(place / "run")
    assert call("run=run", "format=safetensors", cwd=place, verb="export").code == 0
    assert (
        finished(launch("-m", *RUN, "jobs=1", "seed=1,2", cwd=place, output=place / "said", before=_forked_templates))
        == 0
    )
    only_sweep(place).rename(place / "sweep")
    shutil.rmtree(place / "outputs")
    for name in ("summary.json", "metrics.csv"):
        (place / "sweep" / "0" / name).unlink()
    known = json.loads((place / "sweep" / "sweep.json").read_text())
    assert len(known["jobs"]) == 2
    return place


CASES = [(what, name, kind) for what, (_, _, names) in COMMANDS.items() for name in names for kind in KINDS]


def _meet(case: tuple[str, str, str], sound: Path, place: Path) -> None:
    what, name, kind = case
    verb, words, _ = COMMANDS[what]
    shutil.copytree(sound, place / "here")
    outside = place / "outside"
    target = "run" if what == "export" else what if what == "run" else "sweep"
    like = sound / target / name
    if like.is_dir():
        shutil.copytree(like, outside / "folder")
    else:
        (outside / "folder").mkdir(parents=True)
        (outside / "folder" / "kept").write_text("alive")
    (outside / "precious").write_bytes(like.read_bytes() if like.is_file() else b"precious\n")
    planted = place / "here" / target / name
    _plant(kind, planted, outside)
    untouched = _snapshot(outside)
    before = _forked_templates if verb == "train" and words[0] == "-m" else None
    code = finished(launch(*words, cwd=place, output=place / "said", verb=verb, before=before), SECONDS)
    said = (place / "said").read_text()
    assert _snapshot(outside) == untouched, f"changed outside: {said}"
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in said, said
    assert "internal error" not in said, said
    assert "this is a bug" not in said, said
    assert code in (0, 2, 3, 5), said
    several = what == "sweep" and code  # a job's line, and how many failed
    assert len(errors) <= (2 if several else 1), said
    if code == 0 and what == "run":
        assert call("run=here/run", "device=cpu", cwd=place, verb="evaluate").code == 0
    if what == "look" and code == 0:
        assert _snapshot(place / "here" / "sweep") == looked_at(place, sound, planted)


def looked_at(place: Path, sound: Path, planted: Path) -> Mapping[str, Any]:
    """The sweep as it was before it was looked at: the sound one but for what was planted."""
    now, was = _snapshot(place / "here" / "sweep"), dict(_snapshot(sound / "sweep"))
    own = str(planted.relative_to(place / "here" / "sweep"))
    return {name: value for name, value in was.items() if name.split("/")[0] != own.split("/")[0]} | {
        name: value for name, value in now.items() if name.split("/")[0] == own.split("/")[0]
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_planted_files(campaign: Callable[..., Any], sound: Path, tmp_path: Path) -> None:
    key, quick, full = "PLANTED", 2, len(CASES)
    for trial in campaign(
        "a link, pipe, socket or folder in place of a file that is written", key=key, quick=quick, full=full
    ):
        with trial:
            case = chosen(CASES, trial, count(key, quick, full))
            place = tmp_path / f"{trial.number}"
            place.mkdir()
            try:
                _meet(case, sound, place)
            except AssertionError as error:
                raise AssertionError(f"{case}: {error}") from error
            shutil.rmtree(place)
