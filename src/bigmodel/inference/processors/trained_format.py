"""Errors of a table that is written otherwise than the run's own: a prediction has no settings to read it by."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from bigmodel.datasets.files.table_format import TableFormat
from bigmodel.errors import DataError

_HINT = re.compile(r"; (?:[^;]*\b)?dataset\..*")  # of a setting of training


@contextlib.contextmanager
def as_trained(form: TableFormat) -> Iterator[None]:
    """Replace hints at settings of the dataset by how the file has to be written: as the run's own data."""
    try:
        yield
    except DataError as error:
        separator = "by the suffix" if form.separator is None else repr(form.separator)
        how = f"separator {separator}, decimal {form.decimal!r}, encoding {form.encoding or 'utf-8'}"
        lines = [_HINT.sub(f"; write it as the run's own data was written: {how}", line) for line in error.lines]
        raise DataError(*lines) from error
