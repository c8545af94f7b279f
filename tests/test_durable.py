"""Files of one's own are never written through a link, and only regular files are read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bigmodel.runs import checkpoint
from bigmodel.runs.lock import RunLock
from bigmodel.safe_files import append_to, open_own, open_regular, own_folder, read_bytes, remove, replacing, write_text
from conftest import Answer, call


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    file = tmp_path / "precious"
    file.write_text("precious")
    return file


@pytest.mark.parametrize("how", ["link", "dangling", "loop", "hard link", "pipe"])
def test_what_is_no_file_of_ones_own_is_not_opened_for_writing(tmp_path: Path, precious: Path, how: str) -> None:
    place = tmp_path / "run" / "train.log"
    place.parent.mkdir()
    if how == "pipe":
        os.mkfifo(place)
    elif how == "hard link":
        os.link(precious, place)
    else:
        place.symlink_to({"link": precious, "dangling": tmp_path / "new", "loop": place}[how])
    for write in (append_to, open_own):
        with pytest.raises(OSError, match=r"train\.log is (a link|a hard link|no regular file), .*; remove it"):
            write(place)
    assert precious.read_text() == "precious"
    assert not (tmp_path / "new").exists()
    write_text(place, "whole")
    assert (place.read_text(), precious.read_text(), place.is_symlink()) == ("whole", "precious", False)


def test_what_is_replaced_is_whole_or_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "a.csv"
    place.write_text("old")
    with pytest.raises(KeyError), replacing(place) as scratch:  # noqa: PT012 - the half is what is tested
        scratch.write_text("ha")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert place.read_text() == "old"


def test_folders_of_ones_own_are_no_links(tmp_path: Path, tiny_run: Answer) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for copy in (run, other):
        shutil.copytree(tiny_run.run, copy)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(other / "checkpoints")
    before = sorted(path.name for path in (other / "checkpoints").rglob("*"))
    answer = call(f"resume={run}", "epochs=3", cwd=tmp_path)
    assert (answer.code, len(answer.err.splitlines())) == (5, 1)
    assert "checkpoints is a link" in answer.err
    for refused in (lambda: own_folder(run / "checkpoints"), lambda: checkpoint.prune(run / "checkpoints", 2, None)):
        with pytest.raises(OSError, match="checkpoints is a link"):
            refused()
    assert sorted(path.name for path in (other / "checkpoints").rglob("*")) == before
    assert call(f"run={run}", "device=cpu", cwd=tmp_path, verb="evaluate").code == 0  # reading is another matter
    remove(run / "checkpoints")
    assert (other / "checkpoints").is_dir()


def test_a_run_reached_through_links_is_trained_in(tmp_path: Path, tiny_run: Answer) -> None:
    shutil.copytree(tiny_run.run, tmp_path / "scratch" / "run")
    (tmp_path / "outputs").symlink_to(tmp_path / "scratch")
    (tmp_path / "newest").symlink_to(tmp_path / "outputs" / "run")
    answer = call("resume=newest", "epochs=3", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert (tmp_path / "scratch" / "run" / "checkpoints" / "step-00000009").is_dir()


def test_a_locks_file_is_not_truncated_through_a_link(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match=r"\.lock is a link"):
        RunLock(tmp_path / "run")
    assert precious.read_text() == "precious"


def test_a_sweep_that_is_looked_at_is_left_as_it_is(tmp_path: Path, precious: Path) -> None:
    """Not even its lock is touched."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    settings = '{"jobs": 1, "threads": 1, "on_failure": "continue"}'
    (sweep / "sweep.json").write_text(f'{{"settings": {settings}, "trust": [], "trials": null, "jobs": []}}')
    (sweep / ".lock").symlink_to(precious)
    answer = call("-m", f"resume={sweep}", "dry_run=true", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert precious.read_text() == "precious"
    assert sorted(path.name for path in sweep.iterdir()) == [".lock", "sweep.json"]


def test_only_regular_files_are_read(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "link").symlink_to(precious)
    assert read_bytes(tmp_path / "link") == b"precious"
    with pytest.raises(OSError, match="8 bytes, more than 7, are too many"):
        read_bytes(precious, 7)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a file"):
            open_regular(place)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="a sparse file: 1099511627776 bytes"):
        open_regular(tmp_path / "hole")
    with pytest.raises(OSError, match="too many"):
        read_bytes("/proc/self/maps", 10)  # which has a size of 0
