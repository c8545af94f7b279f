"""Places that cannot be written: refused at the start in one line, with nothing half-made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import fingerprint, records
from forks import finished, launch
from mounts import mounted

pytestmark = pytest.mark.slow  # make test-all

RUN = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[16]", "limit_batches=2", "listeners=[]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A run of one epoch, and the same with a second one added."""
    made = {}
    for epochs in (1, 2):
        cwd = tmp_path_factory.mktemp("made")
        assert finished(launch(*RUN, "schedule=constant", "epochs=1", cwd=cwd)) == 0
        (made[epochs],) = cwd.glob("outputs/*/*")
    assert finished(launch(f"resume={made[2]}", "epochs=2", cwd=made[2].parent)) == 0
    return made


def _files(place: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in place.rglob("*")}


def _refused(said: Path, code: int, *named: object) -> None:
    (line,) = [line for line in said.read_text().splitlines() if not line.startswith("resume: epochs was 1")]
    assert code == 5, line
    assert line.startswith("error: ")
    for name in named:
        assert str(name) in line, line


def test_an_output_place_that_cannot_be_written(campaign: Callable, tmp_path: Path) -> None:
    for trial in campaign("output_dir cannot be written", key="READ_ONLY", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            with mounted(cwd / "place", "size=9m") as mount:
                below = trial.random.choice(("", "new", "new/deep"))
                mount.remount("ro")
                process = launch(
                    *RUN, f"output_dir={mount.path / below}", cwd=cwd, output=cwd / "said", before=mount.enter
                )
                code = finished(process)
                _refused(cwd / "said", code, mount.path, "cannot be created: Read-only file system", "set output_dir")
                assert _files(mount.inside) == {}
            assert sorted(path.name for path in cwd.iterdir()) == ["place", "said"]


def test_a_run_on_a_disk_that_became_read_only(campaign: Callable, runs: dict[int, Path], tmp_path: Path) -> None:
    for trial in campaign("a run is resumed where nothing can be written", key="READ_ONLY_RESUME", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            with mounted(cwd / "place", "size=9m") as mount:
                inside, run = mount.inside / "run", mount.path / "run"
                shutil.copytree(runs[1], inside)
                before = _files(inside)
                mount.remount("ro")
                process = launch(f"resume={run}", "epochs=2", cwd=cwd, output=cwd / "said", before=mount.enter)
                code = finished(process)
                _refused(cwd / "said", code, run, "Read-only file system", "last saved step: 2")
                assert _files(inside) == before
                mount.remount("rw")
                assert finished(launch(f"resume={run}", "epochs=2", cwd=cwd, before=mount.enter)) == 0
                assert (fingerprint(inside), records(inside)) == (fingerprint(runs[2]), records(runs[2]))


@pytest.fixture
def frozen(tmp_path: Path):
    """`frozen(path)` makes a file or directory immutable, for root too."""
    changed: list[Path] = []

    def freeze(path: Path) -> Path:
        done = subprocess.run(["chattr", "+i", path], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"chattr: {done.stderr.strip()}")
        changed.append(path)
        return path

    if shutil.which("chattr") is None:
        pytest.skip("needs chattr")
    yield freeze
    for path in changed:
        subprocess.run(["chattr", "-i", path], check=True)


def test_what_may_not_be_changed(campaign: Callable, runs: dict[int, Path], tmp_path: Path, frozen: Callable) -> None:
    for trial in campaign("an immutable directory or file in the way", key="IMMUTABLE", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            shutil.copytree(runs[1], cwd / "run")
            below = (".", ".lock", "train.log", "metrics.jsonl", "checkpoints")[trial.number % 5]
            frozen(cwd / "run" / below)
            code = finished(launch(f"resume={cwd / 'run'}", "epochs=2", cwd=cwd, output=cwd / "said"))
            _refused(cwd / "said", code, cwd / "run", "Operation not permitted", "last saved step: 2")
            subprocess.run(["chattr", "-i", cwd / "run" / below], check=True)
            assert finished(launch(f"resume={cwd / 'run'}", "epochs=2", cwd=cwd)) == 0
            assert (fingerprint(cwd / "run"), records(cwd / "run")) == (fingerprint(runs[2]), records(runs[2]))


def test_a_place_that_the_kernel_keeps_for_itself(campaign: Callable, tmp_path: Path) -> None:
    """Needs no privilege: nobody can make a directory there."""
    places = ("/proc/nowhere", "/dev/null/deep", "/sys/nowhere")
    for trial in campaign("output_dir where no directory can be made", key="NO_PLACE", quick=1, full=6):
        with trial:
            place, said = places[trial.number % 3], tmp_path / f"said{trial.number}"
            process = launch(*RUN, f"output_dir={place}", cwd=tmp_path, output=said)
            _refused(said, finished(process), place, "output_dir")
