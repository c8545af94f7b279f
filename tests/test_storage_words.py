"""What a refused file of a run is called, while the run is in its directory."""

import errno
import os

import pytest

from bigmodel.errors import StorageError
from bigmodel.training.error_translation import translate_run_errors

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
