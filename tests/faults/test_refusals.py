"""Odd refusals of file systems, full outputs, and signals that fall into foreign code: the right code and words."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import committing
from bigmodel.commands.exit_codes import run_command
from bigmodel.errors import ConfigError, DataError, Interrupted, StorageError
from bigmodel.runs import checkpoint
from bigmodel.runtime import gpus
from bigmodel.runtime.signals import StopRequest
from campaign import SEED
from conftest import TINY, Answer, call, is_quiet
from forks import finished, launch

pytestmark = pytest.mark.slow  # make test-all

RUN = (*TINY, "device.threads=1", "listeners=[]", "save_every=1steps", "evaluate_every=3steps")
NUMBERS = (errno.EMFILE, errno.ESTALE, errno.EBUSY, errno.ENOSYS, errno.EIO)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (line,) = is_quiet(cli(*TINY), code=5)
    assert "file system has no locks" in line
    assert os.strerror(number) in line
    assert "set output_dir" in line
    (line,) = is_quiet(cli("-m", *TINY, "seed=1,2"), code=5)
    assert "file system has no locks" in line


def test_a_gpus_lock_that_is_refused_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setenv("BIGMODEL_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"cannot be locked .*No locks available"):
        gpus.acquire([gpus.Gpu("0", 0.0)])


def _strike(nth: int, number: int) -> None:
    committing.arm(nth, number)


def test_refusals_in_the_middle_of_a_run(campaign: Callable[..., Any], tmp_path: Path) -> None:
    """Whichever call of a save is refused, and however: exit code 5 and words, or a removal that is put off."""
    fault = "EMFILE, ESTALE, EBUSY, ENOSYS or EIO at a call of a run's saves, resume"
    for trial in campaign(fault, key="REFUSALS", quick=3, full=100):
        with trial:
            here = tmp_path / str(trial.number)
            here.mkdir()
            number = NUMBERS[(trial.number + SEED) % len(NUMBERS)]
            strike = partial(_strike, trial.random.randrange(60), number)
            code = finished(launch(*RUN, cwd=here, output=here / "said", before=strike))
            said = (here / "said").read_text()
            assert "bug" not in said, said
            assert "Traceback" not in said, said
            assert code in (0, 5), said
            if code:
                (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
                assert os.strerror(number) in line
                assert number != errno.EMFILE or "ulimit -n" in line or "cannot be created" in line
            runs = [path for path in here.glob("outputs/*/*") if (path / "config.yaml").exists()]
            for run in runs:
                assert call(f"resume={run}", cwd=here).code == 0
            shutil.rmtree(here)


def test_a_removal_that_is_refused_is_put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS does while another process reads an old checkpoint."""
    root, rmdir = tmp_path / "root", os.rmdir

    def busy(path: Any, *rest: Any, **more: Any) -> None:
        if not done:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rmdir(path, *rest, **more)

    done: list[bool] = []
    monkeypatch.setattr(os, "rmdir", busy)
    for step in range(1, 5):
        committing.save(root, step, step, best=1)
    assert [path.name for path in checkpoint.list_checkpoints(root)] == [
        "step-00000004",
        "step-00000003",
        "step-00000001",
    ]
    assert list(root.glob(".tmp-*"))
    done.append(True)
    committing.save(root, 5, 5, best=1)
    assert not list(root.glob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_standard_output_is_told_by_every_command(tiny_run: Answer, tmp_path: Path, *, buffered: bool) -> None:
    run = str(tiny_run.run)
    (tmp_path / "image.pgm").write_bytes(b"P5 8 8 255 " + bytes(64))
    for verb, words in {
        "runs": (f"output_dir={tiny_run.cwd}/outputs",),
        "compare": (run,),
        "evaluate": (f"run={run}", "device=cpu"),
        "predict": (f"run={run}", "device=cpu", "input=image.pgm"),
        "export": (f"run={run}", "format=safetensors", "output=model.safetensors"),
        "train": ("--help",),
        "train ": (*TINY, "dry_run=true"),
        "train  ": ("-m", *TINY, "dry_run=true", "seed=1,2"),
    }.items():
        said = tmp_path / "said"
        with said.open("wb") as stream:
            before = partial(_full_output, buffered, stream.name)
            code = finished(launch(*words, cwd=tmp_path, output=Path(os.devnull), verb=verb.strip(), before=before))
        (line,) = said.read_text().splitlines()
        assert code == 5, (verb, line)
        assert line.startswith("error: standard output"), (verb, line)
        assert line.endswith("No space left on device")
    assert not (tmp_path / "outputs").exists()


def _full_output(buffered: bool, said: str) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY), 2)
    sys.stdout.reconfigure(write_through=not buffered)  # type: ignore[union-attr]


@pytest.mark.parametrize("made_of_it", [DataError, ConfigError, ValueError, KeyError])
def test_a_signal_that_falls_into_foreign_code_stays_one(
    made_of_it: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """A decoder's `except Exception` must not make a damaged picture of it."""

    def run(_: StopRequest) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 0.1)
        except Interrupted as error:
            raise made_of_it(f"not a readable picture ({error}); mend or remove it") from error
        return 0

    handlers = {number: signal.getsignal(number) for number in (1, 2, 10, 15)}
    try:
        assert run_command(run, verbose=False) == 75
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "stopped by SIGTERM; nothing was written\n"


def test_a_limit_on_open_files_is_told(tmp_path: Path) -> None:
    """The real thing: the limit falls to what is open already, in the middle of a run."""
    (tmp_path / "few.py").write_text(
        "import os, resource, time\n"
        "from pathlib import Path\n"
        "class Few:\n"
        "    def __init__(self, directory: Path) -> None: pass\n"
        "    def __call__(self, event: object) -> None:\n"
        "        if type(event).__name__ == 'Stepped' and event.step == 4:\n"
        "            time.sleep(0.5)  # the save before has closed its files\n"
        "            lowest = os.dup(0)\n"
        "            os.close(lowest)\n"
        "            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))\n"
        "    def close(self) -> None: pass\n"
    )
    words = (*RUN, "+listeners.few={_target_: few.Few}", "trust=[few]")
    code = finished(launch(*words, cwd=tmp_path, output=tmp_path / "said"))
    said = (tmp_path / "said").read_text()
    assert code == 5, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Too many open files, raise the limit with ulimit -n; last saved step:" in line
    (run,) = tmp_path.glob("outputs/*/*")
    again = launch(f"resume={run}", "trust=[few]", cwd=tmp_path, output=tmp_path / "again")  # it limits its process
    assert finished(again) in (0, 5)
