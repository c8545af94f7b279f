"""Find the texts that `input=` names: the text itself, lines of a file, rows of a table, or whole files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from bigmodel.datasets.files import text_archives
from bigmodel.datasets.files.table_format import delimiter
from bigmodel.datasets.files.text_encoding import codec_name
from bigmodel.datasets.text.labelled_rows import is_table, read_texts
from bigmodel.errors import DataError
from bigmodel.formatting import truncate
from bigmodel.inference.processors.files import list_files, read_standard_input, read_text

_FILE_NAME = re.compile(  # a file name rather than a sentence
    r"\S+\.(txt|md|label|csv|tsv|jsonl?|ndjson|parquet|arrow|feather|xlsx?|tar|gz|zip)", re.IGNORECASE
)
_SUFFIXES = frozenset({".txt"})


@runtime_checkable
class TextInputProcessor(Protocol):
    """A `Processor` of texts."""

    texts: TextInputs


class TextInputs:
    """Reader of a model's input texts.

    - `columns`: names that the text column of a table may have; none for a model trained on plain text.
    - `names`: all column names, for tables without a header.
    - `by_file`: a file is one text; else each of its lines is.
    - `notes`: parts of the last input that were ignored, one line each.

    Raises:
        ConfigError: `encoding` is unknown.
        ValueError: `separator` is invalid.
    """

    def __init__(
        self,
        columns: Sequence[str] = (),
        separator: str | None = None,
        encoding: str | None = None,
        by_file: bool = False,
        names: Sequence[str] | None = None,
    ) -> None:
        codec_name(encoding)
        if separator is not None:
            delimiter(separator)
        self.columns = columns
        self.separator = separator
        self.encoding = encoding
        self.by_file = by_file
        self.names = names
        self.notes: list[str] = []

    def list_inputs(self, given: str) -> list[str]:
        """List the texts; empty lines are skipped.

        Raises:
            DataError: the input holds no text, or is a table and the model was trained on plain text.
        """
        self.notes = []
        if given == "-":
            return _lines(read_standard_input(self.encoding))
        if os.path.isfile(given):
            return self._read_file(given)
        if os.path.isdir(given) or (re.search(r"[*\[]", given) and glob.glob(given, recursive=True)):
            return [text for file in list_files(given, _SUFFIXES, "text") for text in self._read_file(file)]
        _reject_missing_file(given)
        return [given] if self.by_file else _lines(given)

    def read_whole(self, given: str) -> str:
        """Return the text itself, or the whole content of a file or of standard input.

        Raises:
            DataError: the file does not exist or is a table.
        """
        self.notes = []
        if given == "-":
            return read_standard_input(self.encoding)
        if not os.path.isfile(given):
            _reject_missing_file(given)
            return given
        if is_table(Path(given)):
            raise DataError(f"input: '{truncate(given)}' is a table, not one text; give the text of one row")
        return read_text(given, self.encoding)

    def _read_file(self, file: str) -> list[str]:
        path = Path(file)
        if is_table(path):
            if not self.columns:
                raise DataError(
                    f"input: '{truncate(file)}' is a table, and this model was trained on plain text, so the text "
                    "column is unknown; write the texts to a .txt file, one per line"
                )
            texts, unused = self._read_table(path)
            if unused:
                self.notes.append(f"{file}: unused columns: {', '.join(unused)}")
            return texts
        if text_archives.is_archive(path):
            raise DataError(f"input: '{truncate(file)}' is an archive; unpack it and give the folder")
        if path.suffix.lower() == ".label":
            self.notes.append(f"{file}: the label at the start of each line is ignored")
            lines = (line.strip().partition(" ")[2].strip() for line in read_text(file, self.encoding).splitlines())
            return [line for line in lines if line]
        text = read_text(file, self.encoding)
        return _lines(text) if not self.by_file else [text.strip()]

    def _read_table(self, path: Path) -> tuple[list[str], list[str]]:
        """Return the texts and the unused columns. The file is UTF-8, or in the encoding of the training texts."""
        try:
            return read_texts(path, self.columns, self.separator, None, self.names)
        except DataError as error:
            if self.encoding is None:
                raise DataError(*(line.replace("dataset.encoding", "encoding") for line in error.lines)) from error
        return read_texts(path, self.columns, self.separator, self.encoding, self.names)


def _reject_missing_file(given: str) -> None:
    """Raise DataError for what looks like a file name rather than a text."""
    if _FILE_NAME.fullmatch(given):
        raise DataError(
            f"input: there is no file '{truncate(given)}'; if this is the text itself, give it on standard input"
        )


def _lines(text: str) -> list[str]:
    """Return the lines that are not empty. DataError if all are."""
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not lines:
        raise DataError("input: holds no text; give a text, a file with one text per line, or - for standard input")
    return lines
