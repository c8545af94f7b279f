"""Texts with a label each, as files hold them: tables, the question files of TREC, a folder of text files a class, and
tars of texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bigmodel.datasets.files import text_archives
from bigmodel.datasets.files.class_folders import find_class_folders
from bigmodel.datasets.files.structured import ARROW, JSON, JSON_LINES, PARQUET
from bigmodel.datasets.files.table_bytes import bare_name
from bigmodel.datasets.files.table_files import SHOWN, TableFormat, describe_skipped_rows, raise_row_errors, read_rows
from bigmodel.datasets.files.text_encoding import codec_name, decode
from bigmodel.errors import DataError, MissingColumnError
from bigmodel.safe_files import read_bytes

_BLANK = " \t\r\n"
TABLES = PARQUET | ARROW | JSON | JSON_LINES | {".csv", ".tsv", ".tab"}
_LARGEST = 64 << 20  # bytes of one text


@dataclass(frozen=True)
class LabelledText:
    """A text with its label; `location` is `file:line`."""

    location: str
    text: str
    label: str


@dataclass
class LabelledTextReader:
    """Reader of files of labelled texts. `text_columns` are the names that the texts' column may have.

    With `broken=refuse` the first few bad rows and their number are an error; `skip` leaves them out and counts them in
    `notes`.
    """

    text_columns: Sequence[str]
    label_column: str
    separator: str | None = None
    encoding: str | None = None
    broken: Literal["refuse", "skip"] = "refuse"
    what: str = "texts"
    columns: Sequence[str] | None = None  # where the file has no header
    notes: list[str] = field(default_factory=list)  # what was left out or renamed

    def splits(self, path: Path, name: str) -> dict[str, list[LabelledText]]:
        """Read the rows of a file, or of a folder's splits, under their names, with `name` for that of the file.

        Raises:
            ConfigError: there is no such encoding.
            DataError: the file cannot be read, holds nothing, or has bad rows; each is named by file and line.
        """
        codec_name(self.encoding)
        if path.is_dir():
            return self._folder(path, name)
        if path.suffix.lower() == ".label":
            return {name: self._valid_rows(path, self._questions(path))}
        if text_archives.is_archive(path):
            return {name: self._valid_rows(path, self._archive(path))}
        return {name: self.table(path)}

    def table(self, file: Path) -> list[LabelledText]:
        """Read the rows of a table; fields of `.tsv` are parted by tabs, and its quotes are letters.

        Raises:
            DataError: the file cannot be read, holds nothing, or has bad rows; each is named by file, line and column.
        """
        form = _format(file, self.separator, self.encoding, self.columns, self.broken)
        found = read_rows(file, form, [self.label_column])
        column = _column(file, self.text_columns, list(found.columns))
        self.notes += found.notes
        faults = found.width_problems([column, self.label_column])

        def rows() -> Iterator[LabelledText | str]:
            cells = zip(found.texts(column), found.texts(self.label_column), strict=True)
            for number, (text, label) in enumerate(cells):
                if number in faults:
                    yield faults[number]
                elif text and label:
                    yield LabelledText(found.location(number), text, label)
                else:
                    yield f"{found.location(number)}: column '{self.label_column if text else column}': empty"

        return self._valid_rows(file, rows(), found.skipped)

    def _questions(self, file: Path) -> Iterator[LabelledText | str]:
        """Yield the lines as `NUM:dist How far is it ?`: of the label what is before the colon, then a blank, then the
        text.

        Where the file is not UTF-8 and no encoding is stated, it is Latin-1, as TREC's own.
        """
        content = _content(file)
        try:
            text = decode(content, str(file), self.encoding)
        except DataError:
            if self.encoding is not None:
                raise
            text = content.decode("latin-1")
        for number, line in enumerate(text.split("\n"), 1):
            label, _, question = line.strip().partition(" ")
            if label and question:
                yield LabelledText(f"{file}:{number}", question.strip(), label.partition(":")[0])
            elif label:
                yield f"{file}:{number}: column 'text': empty; a line is a label, a blank and a question"

    def _archive(self, file: Path) -> Iterator[LabelledText | str]:
        for key, parts in text_archives.iter_samples(file):
            place = f"{file}:{key}"
            if not {"txt", "cls"} <= parts.keys():
                yield f"{place}: needs KEY.txt with its label in KEY.cls; has {', '.join(sorted(parts))}"
                continue
            text, label = (decode(parts[part], f"{place}.{part}", self.encoding).strip() for part in ("txt", "cls"))
            yield LabelledText(place, text, label) if text and label else f"{place}: empty"

    def _folder(self, folder: Path, name: str) -> dict[str, list[LabelledText]]:
        found = find_class_folders(str(folder), frozenset({".txt"}), "text")
        self.notes += getattr(found, "notes", ())

        def rows(paths: Sequence[str], labels: Sequence[int]) -> Iterator[LabelledText | str]:
            for path, label in zip(paths, labels, strict=True):
                try:
                    text = decode(_content(Path(path)), path, self.encoding).strip()
                except DataError as error:
                    yield from error.lines
                    continue
                yield LabelledText(path, text, found.classes[label]) if text else f"{path}: empty"

        return {
            name if split == "train" else split: self._valid_rows(folder, rows(*files))
            for split, files in found.splits.items()
        }

    def _valid_rows(
        self, path: Path, found: Iterator[LabelledText | str], skipped: Sequence[str] = ()
    ) -> list[LabelledText]:
        """Return the valid rows; refuse or skip bad ones. `skipped` counts rows that were left out before."""
        rows: list[LabelledText] = []
        problems = list(skipped)
        for one in found:
            if isinstance(one, LabelledText):
                rows.append(one)
            else:
                problems.append(one)
        if self.broken == "refuse" and problems:
            place = min(len(problems), SHOWN) - 1
            problems[place] += "; dataset.broken=skip leaves such rows out"
            raise_row_errors(problems, path)
        elif problems:
            self.notes.append(describe_skipped_rows(problems, path))
        if not rows:
            raise DataError(f"{path}: holds no {self.what}")
        return rows


def is_table(path: Path) -> bool:
    """Return whether a file has the name of a table."""
    return Path(bare_name(str(path))).suffix in TABLES


def read_texts(
    file: Path,
    columns: Sequence[str],
    separator: str | None,
    encoding: str | None,
    names: Sequence[str] | None = None,
) -> tuple[list[str], list[str]]:
    """Read the texts of a table, empty ones too, and the names of the columns that were not looked at. `columns` are
    the names that the texts' may have; `names` those of all columns, where the file has no header.

    Raises:
        DataError: the file cannot be read, or has none of the `columns`.
    """
    wanted = [name for name in columns if name in names][:1] if names else []
    found = read_rows(file, _format(file, separator, encoding, names), wanted)
    column = _column(file, columns, list(found.columns))
    raise_row_errors([*found.width_problems([column]).values()], file)
    if not found:
        raise DataError(f"{file}: holds no texts")
    return found.texts(column), [name for name in found.columns if name != column]


def column_names(file: Path, separator: str | None, encoding: str | None) -> list[str]:
    """Return the names of a table's columns. DataError where it cannot be read."""
    return list(read_rows(file, _format(file, separator, encoding)).columns)


def _column(file: Path, wanted: Sequence[str], known: Sequence[str]) -> str:
    found = next((name for name in wanted if name in known), None)
    if found is None:
        raise MissingColumnError(f"{file}:1", wanted[0], f"the columns are: {', '.join(known)}")
    return found


def _format(
    file: Path,
    separator: str | None,
    encoding: str | None,
    columns: Sequence[str] | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
) -> TableFormat:
    """Format of a file: in `.tsv` quotation marks are letters, unless a separator is stated."""
    tabs = separator is None and bare_name(str(file)).endswith(".tsv")
    return TableFormat(columns, separator, quoted=not tabs, strip=_BLANK, encoding=encoding, broken=broken)


def _content(file: Path) -> bytes:
    if not file.is_file():  # opening a pipe could wait forever
        raise DataError(f"{file}: is not a regular file")
    try:
        if (size := file.stat().st_size) > _LARGEST:
            raise DataError(f"{file}: {size:,} bytes exceed the {_LARGEST:,} of one text")
        return read_bytes(file, _LARGEST)
    except OSError as error:
        raise DataError(f"dataset: {file} cannot be read: {error.strerror or error}") from error
