"""What a refused file of a run is called, while the run is in its directory."""

import errno
import os
import shutil
import socket
from concurrent.futures import Future

import pytest

from bigmodel.commands import train_and_test
from bigmodel.commands.exit_codes import exit_code_of
from bigmodel.errors import StorageError
from bigmodel.training.error_translation import translate_run_errors
from conftest import TINY, call, is_quiet

READ_ONLY = os.strerror(errno.EROFS)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EISDIR, "Is a directory", "/runs/a/.lock"), ".lock: Is a directory; no step was saved"),
        (OSError(errno.ENXIO, "no regular file", b"/runs/a/metrics.jsonl"), "metrics.jsonl: no regular file; no step"),
        (OSError(errno.ELOOP, "train.log is a link", "/runs/a/train.log"), "train.log is a link; no step"),
        (OSError(errno.EROFS, READ_ONLY, "/runs/a/.tmp-12ab"), f"{READ_ONLY}; no step"),
        (OSError(errno.EROFS, READ_ONLY, 7), f"{READ_ONLY}; no step"),
    ],
)
def test_the_file_that_is_refused_is_named(tmp_path, error, told):
    with pytest.raises(StorageError) as caught, translate_run_errors(tmp_path, None):
        raise error
    assert f"{tmp_path}: {told}" in str(caught.value)


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


ODD = {"a pipe": _pipe, "a directory": os.mkdir, "a socket": _socket}
COMMANDS = {
    "resume": ("train", "resume=run"),
    "evaluate": ("evaluate", "run=run"),
    "predict": ("predict", "run=run", "input=a.png"),
}


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run.run, tmp_path / "run")


@pytest.mark.parametrize("kind", ODD)
def test_a_config_that_is_no_file(cli, run, tmp_path, kind):
    (run / "config.yaml").unlink()
    ODD[kind](run / "config.yaml")
    (line,) = is_quiet(cli("resume=run", cwd=tmp_path), code=5)
    assert line.startswith(f"resume: run/config.yaml: is {kind}")
    assert cli("run=run", "device=cpu", cwd=tmp_path, verb="evaluate").code == 0  # the checkpoint is enough
    days = tmp_path / "outputs" / "day"
    days.mkdir(parents=True)
    shutil.move(run, days / "run")
    listed = cli(cwd=tmp_path, verb="runs")
    (line,) = listed.err.splitlines()
    assert line.startswith(f"warning: outputs/day/run/config.yaml: cannot be read as a config: is {kind}")
    assert listed.code == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["a pipe", "a socket"])
def test_checkpoints_that_are_no_folder(cli, run, tmp_path, command, kind):
    shutil.rmtree(run / "checkpoints")
    ODD[kind](run / "checkpoints")
    verb, *words = COMMANDS[command]
    (line,) = is_quiet(cli(*words, cwd=tmp_path, verb=verb), code=5)
    assert "run/checkpoints" in line or "checkpoints is no directory" in line


@pytest.fixture
def closed(monkeypatch):
    """Close a folder to its reader, as one of another user with mode 0700 is; root may read any."""

    def close(folder):
        listed, scanned = os.listdir, os.scandir

        def refuse(real):
            def look(path="."):
                if os.path.realpath(path) == str(folder.resolve()):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                return real(path)

            return look

        monkeypatch.setattr(os, "listdir", refuse(listed))
        monkeypatch.setattr(os, "scandir", refuse(scanned))

    return close


@pytest.mark.parametrize("command", COMMANDS)
def test_checkpoints_of_another_user(cli, run, tmp_path, command, closed):
    closed(run / "checkpoints")
    verb, *words = COMMANDS[command]
    (line,) = is_quiet(cli(*words, cwd=tmp_path, verb=verb), code=5)
    assert line == "run/checkpoints: cannot be listed: Permission denied"
    assert (run / "metrics.jsonl").read_text() != ""


def test_an_output_directory_of_another_user(cli, run, tmp_path, closed):
    closed(tmp_path)
    (line,) = is_quiet(cli("output_dir=.", cwd=tmp_path, verb="runs"), code=5)
    assert line == ".: cannot be listed: Permission denied"


def test_a_summary_that_cannot_be_written_is_told_and_a_resume_writes_it(tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(train_and_test, "write_json", full)
        answer = call(*TINY, cwd=tmp_path)
    assert answer.code == 5
    assert "summary.json: cannot be written: No space left on device; the run is done and" in answer.err
    (run,) = (tmp_path / "outputs").glob("*/*")
    assert not (run / "summary.json").exists()
    assert call(f"resume={run}", cwd=tmp_path).code == 0
    assert (run / "summary.json").exists()


@pytest.mark.parametrize(
    "words", ["unable to open file </a> in read-only mode: Too many open files (24)", "I/O error: x (os error 28)"]
)
def test_what_the_system_tells_through_a_library_is_no_bug_of_ours(words, capsys):
    failed: Future[int] = Future()
    failed.set_exception(RuntimeError(words))
    assert exit_code_of(failed.result, verbose=False) == 5
    assert capsys.readouterr().err == f"error: RuntimeError: {words}\n"
