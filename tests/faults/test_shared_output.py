"""Two users of one output_dir: the folders of the first do not keep the second from training."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from bigmodel.cli import _run_guarded
from conftest import TINY, call
from forks import finished, launch
from warm import _forked_templates

RUN = (*TINY, "device.threads=1", "listeners=[]")
NOBODY = 65534


def _become_nobody() -> None:
    """With all that is imported on the way imported by root: its Python need not be readable for others."""
    from bigmodel.sweeps.engines import job_process as worker  # noqa: F401

    no_backward = mock.patch("bigmodel.training.tuning.cost._trace", side_effect=RuntimeError("jobs are forked later"))
    for words in (("dry_run=true",), ("-m", "dry_run=true", "seed=1,2")):
        with contextlib.redirect_stdout(io.StringIO()), no_backward:
            assert _run_guarded("train", (*RUN, *words)) == 0
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.environ["HOME"] = "/"
    _forked_templates()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may write to, as /tmp is; pytest's own are closed to others."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    place = Path(tempfile.mkdtemp(prefix="bigmodel-shared-"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)


def _as_nobody(*words: str, cwd: Path, verb: str = "train") -> tuple[int, str]:
    said = cwd / f"said-{len(list(cwd.iterdir()))}"
    code = finished(launch(*words, cwd=cwd, output=said, verb=verb, before=_become_nobody))
    return code, said.read_text()


@pytest.mark.slow
def test_a_second_user_gets_a_folder_for_the_day_and_all_runs_are_found(shared: Path) -> None:
    assert call(*RUN, cwd=shared).code == 0
    (shared / "outputs").chmod(0o1777)
    (day,) = (shared / "outputs").iterdir()
    code, said = _as_nobody(*RUN, cwd=shared)
    assert code == 0, said
    name = pwd.getpwuid(NOBODY).pw_name
    (run,) = (shared / "outputs" / f"{day.name}-{name}").iterdir()
    assert run.stat().st_uid == NOBODY
    listed = call("format=json", cwd=shared, verb="runs")
    assert len(listed.out.splitlines()) == 2
    assert str(run.relative_to(shared)) in listed.out
    code, said = _as_nobody(f"resume={run.relative_to(shared)}", "epochs=3", cwd=shared)
    assert code == 0, said
    (mine,) = day.iterdir()
    code, said = _as_nobody(f"resume={mine.relative_to(shared)}", "epochs=3", cwd=shared)
    assert code == 5
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Permission denied" in line
    assert call("format=json", cwd=shared, verb="runs").out.count("\n") == 2


@pytest.mark.slow
def test_a_second_user_sweeps(shared: Path) -> None:
    (shared / "outputs" / "sweeps").mkdir(parents=True)
    (shared / "outputs").chmod(0o1777)
    code, said = _as_nobody("-m", *RUN, "jobs=1", "seed=1,2", cwd=shared)
    assert code == 0, said
    (sweep,) = (shared / "outputs").glob("sweeps-*/*")
    assert len(call("format=json", cwd=shared, verb="runs").out.splitlines()) == 2
    code, said = _as_nobody("-m", f"resume={sweep.relative_to(shared)}", cwd=shared)
    assert code == 0, said


@pytest.mark.slow
def test_where_nothing_may_be_written_it_is_said(shared: Path) -> None:
    (shared / "outputs").mkdir(mode=0o755)
    code, said = _as_nobody(*RUN, cwd=shared)
    assert code == 5
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "outputs/" in line
    assert "Permission denied; set output_dir to a directory that you may write" in line
    assert not list((shared / "outputs").iterdir())
