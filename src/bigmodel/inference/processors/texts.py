"""The texts that `input=` means: itself, lines of a file, rows of a table as training read it, or whole files."""

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
from bigmodel.inference.processors.files import list_files, read_text, standard_input

_FILE = re.compile(  # a name rather than a sentence
    r"\S+\.(txt|md|label|csv|tsv|jsonl?|ndjson|parquet|arrow|feather|xlsx?|tar|gz|zip)", re.IGNORECASE
)
_SUFFIXES = frozenset({".txt"})


@runtime_checkable
class TextInputProcessor(Protocol):
    """A `Processor` whose input is texts."""

    texts: TextInputs


class TextInputs:
    """How a model's texts are found.

    `columns` are the names that the texts' column may have in a table, none for a model that was trained on plain text;
    `names` are those of all columns, where tables have no header. `by_file` says that a file is one text, else each
    line of it is.

    `notes` say what of the last input was not looked at.

    Raises:
        ConfigError: there is no such encoding.
        ValueError: the separator is none.
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
        self.names = names
        self.columns, self.separator, self.encoding, self.by_file = columns, separator, encoding, by_file
        self.notes: list[str] = []

    def list_inputs(self, given: str) -> list[str]:
        """Empty lines are passed over.

        Raises:
            DataError: there is no text, or a table whose columns are not known.
        """
        self.notes = []
        if given == "-":
            return _lines(standard_input(self.encoding))
        if os.path.isfile(given):
            return self._of_file(given)
        if os.path.isdir(given) or (re.search(r"[*\[]", given) and glob.glob(given, recursive=True)):
            return [text for file in list_files(given, _SUFFIXES, "text") for text in self._of_file(file)]
        _refuse_name(given)
        return [given] if self.by_file else _lines(given)

    def read_whole(self, given: str) -> str:
        """The text itself, or all of a file or of standard input.

        Raises:
            DataError: there is no such file, or it is a table.
        """
        self.notes = []
        if given == "-":
            return standard_input(self.encoding)
        if not os.path.isfile(given):
            _refuse_name(given)
            return given
        if is_table(Path(given)):
            raise DataError(
                f"input: '{truncate(given)}' is a table, not a text to go on with; give the text of one row"
            )
        return read_text(given, self.encoding)

    def _of_file(self, file: str) -> list[str]:
        path = Path(file)
        if is_table(path):
            if not self.columns:
                raise DataError(
                    f"input: '{truncate(file)}' is a table, and this model was trained on plain text, so no column is "
                    "known; write the texts to a .txt file, one in each line"
                )
            found, ignored = self._of_table(path)
            self.notes += [f"{file}: columns not looked at: {', '.join(ignored)}"] if ignored else []
            return found
        if text_archives.is_archive(path):
            raise DataError(f"input: '{truncate(file)}' is an archive; unpack it and give the folder")
        if path.suffix.lower() == ".label":
            self.notes.append(f"{file}: the label at the start of each line is not looked at")
            lines = (line.strip().partition(" ")[2].strip() for line in read_text(file, self.encoding).splitlines())
            return [line for line in lines if line]
        text = read_text(file, self.encoding)
        return _lines(text) if not self.by_file else [text.strip()]

    def _of_table(self, path: Path) -> tuple[list[str], list[str]]:
        """The texts and the columns not looked at; in UTF-8 or else in the encoding of the training texts."""
        try:
            return read_texts(path, self.columns, self.separator, None, self.names)
        except DataError as error:
            if self.encoding is None:
                raise DataError(*(line.replace("dataset.encoding", "encoding") for line in error.lines)) from error
        return read_texts(path, self.columns, self.separator, self.encoding, self.names)


def _refuse_name(given: str) -> None:
    """DataError for what is the name of a file rather than a text, where there is no such file."""
    if _FILE.fullmatch(given):
        raise DataError(
            f"input: there is no file '{truncate(given)}'; to ask about these very words, give them on standard input"
        )


def _lines(text: str) -> list[str]:
    """The lines that are not empty. DataError if there are none."""
    found = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not found:
        raise DataError("input: holds no text; give a text, a file with one in each line, or - for standard input")
    return found
