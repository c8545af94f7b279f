"""What a refused file of a run is called, while the run is in its directory."""

import errno
import os
from concurrent.futures import Future

import pytest

from bigmodel.commands import train
from bigmodel.errors import StorageError
from bigmodel.failures import failures_in_words
from bigmodel.guard import coded
from conftest import TINY, call

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
    with pytest.raises(StorageError) as caught, failures_in_words(tmp_path, None):
        raise error
    assert f"{tmp_path}: {told}" in str(caught.value)


def test_a_summary_that_cannot_be_written_is_told_and_a_resume_writes_it(tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(train, "write_json", full)
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
    assert coded(failed.result, verbose=False) == 5
    assert capsys.readouterr().err == f"error: RuntimeError: {words}\n"
