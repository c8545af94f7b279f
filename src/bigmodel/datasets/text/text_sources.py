"""Read the text for a language model: text files, a column of tables, JSON lines or Parquet, or a tar of texts.

A table or JSON named as text is refused: a model would learn its commas or brackets.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigmodel.datasets.files import text_archives
from bigmodel.datasets.files.archive import open_maybe_gzipped
from bigmodel.datasets.files.folder_walk import walk_files
from bigmodel.datasets.files.table_bytes import COMPRESSED
from bigmodel.datasets.files.text_encoding import codec_name, decode, explain_undecodable, open_text
from bigmodel.datasets.text.labelled_rows import TABLES, column_names, is_table, read_texts
from bigmodel.errors import DataError
from bigmodel.formatting import truncate

_PIECE = 1 << 20  # characters that are read at once
_HEAD = 1 << 16  # bytes that show what a file is
_MARKUP = frozenset({".htm", ".html", ".ipynb", ".rtf", ".svg", ".tex", ".xml"})
_SHOWN = 5


@dataclass
class TextSource:
    """The files of a path: itself, or a folder's `.txt` files, or its tables where there is a `column`, by name.

    `notes` are lines about files passed over, and text that is no prose.

    Raises:
        ConfigError: there is no such encoding.
        DataError: there is no text at the path, or a table without a `column`.
    """

    path: Path
    column: str | None = None
    encoding: str | None = None
    separator: str | None = None
    files: list[Path] = field(init=False)
    notes: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        codec_name(self.encoding)
        self.files = self._of_folder() if self.path.is_dir() else [self.path]
        if not self.files[0].is_file():
            raise DataError(f"dataset.path: there is no text at '{self.path}'; name a text file, or a folder of them")
        for file in self.files:
            if is_table(file) and self.column is None:
                raise _table_as_text(file, self.separator, self.encoding)
            if not is_table(file) and self.column is not None:
                raise DataError(f"{file}: is not a table, so it has no column '{self.column}'; leave text_column null")
            if not text_archives.is_archive(file):
                self.notes += _looks_strange(file, self.column, self.encoding)

    def _of_folder(self) -> list[Path]:
        passed: Counter[str] = Counter()
        of_tables = self.column is not None
        walked = walk_files(self.path, TABLES | frozenset(COMPRESSED) if of_tables else {".txt", ".gz"}, passed)
        kind = "tables" if of_tables else "texts (.txt)"
        found = []
        for file in sorted(map(Path, walked)):
            if is_table(file) if of_tables else _is_text(file):
                found.append(file)
            else:
                passed[_suffix(file)] += 1
        shown = ", ".join(f"{count} {suffix}" for suffix, count in passed.most_common(_SHOWN))
        if not found:
            also = f"; it holds {shown}, which can be named one by one" if shown else ""
            raise DataError(f"dataset.path: there are no {kind} in the folder '{self.path}' or below it{also}")
        self.notes += [f"{self.path}: files passed over: {shown}"] if shown else []
        return found

    def read_chunks(self) -> Iterator[str]:
        """Yield the text, some lines at a time; one line or more for each row of a table.

        Raises:
            DataError: a file cannot be read, or is not text in its encoding.
        """
        for file in self.files:
            if self.column is not None:
                yield from _join_lines(iter(read_texts(file, [self.column], self.separator, self.encoding)[0]))
            elif text_archives.is_archive(file):
                yield from _join_lines(self._members(file))
            else:
                yield from self._plain(file)

    def _members(self, file: Path) -> Iterator[str]:
        for key, parts in text_archives.iter_samples(file):
            if "txt" in parts:
                yield decode(parts["txt"], f"{file}:{key}.txt", self.encoding)

    def _plain(self, file: Path) -> Iterator[str]:
        try:
            with open_maybe_gzipped(file) as raw, open_text(raw, self.encoding) as lines:
                while piece := lines.readlines(_PIECE):
                    text = "".join(piece)
                    if "\0" in text:
                        raise UnicodeError("zero bytes")
                    yield text
        except UnicodeError as error:
            raise _wrong_bytes(file, self.encoding) from error
        except OSError as error:
            raise DataError(f"{file.absolute()}: cannot be read: {error.strerror or error}") from error


def _join_lines(texts: Iterator[str]) -> Iterator[str]:
    """Join texts into chunks, each text ending a line."""
    size = 0
    part = list[str]()
    for text in texts:
        part.append(text if text.endswith("\n") else f"{text}\n")
        size += len(text)
        if size > _PIECE:
            yield "".join(part)
            size = 0
            part = []
    yield "".join(part)


def _suffix(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _is_text(file: Path) -> bool:
    return _suffix(file) == ".txt"


def _wrong_bytes(file: Path, encoding: str | None) -> DataError:
    """Return the error that names the line of the first wrong byte."""
    decoder = codecs.getincrementaldecoder(codec_name(encoding))()
    lines = 0
    block = b""
    with open_maybe_gzipped(file) as raw:
        while block := raw.read(_PIECE):
            try:
                if "\0" in decoder.decode(block):
                    break
            except UnicodeError:
                break
            lines += block.count(b"\n")
    begin = block.find(b"\n") + 1 if lines else 0  # a later block may begin within a character
    return explain_undecodable(block[begin:], str(file.absolute()), encoding, lines_before=lines + bool(begin))


def _looks_strange(file: Path, column: str | None, encoding: str | None) -> list[str]:
    """Return a note on a text file that seems to hold markup or JSON, which a model would learn as it stands."""
    if column is not None:
        return []
    if _suffix(file) in _MARKUP:
        return [f"{file}: its {_suffix(file)} markup is learned as it stands; convert it to plain text to learn that"]
    try:
        with open_maybe_gzipped(file) as raw:
            head = raw.read(_HEAD)
    except DataError:
        return []  # said when it is read
    if b"\0" in head and codec_name(encoding) == "utf-8-sig":  # in a sparse file the first line might never end
        raise explain_undecodable(head, str(file.absolute()), encoding)
    first = next((line for line in head.splitlines() if line.strip()), b"").strip()
    if first[:1] in (b"{", b"[") and (isinstance(_json_or_none(first), (dict, list)) or first in (b"{", b"[")):
        return [
            f"warning: {file}: begins like JSON, which is learned as it stands; name it .jsonl or .json and set "
            "dataset.text_column to learn a value of each record"
        ]
    return []


def _json_or_none(line: bytes | str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _table_as_text(file: Path, separator: str | None, encoding: str | None) -> DataError:
    """Return the setting by which a table's texts are learned, not its commas or brackets."""
    try:
        columns = column_names(file, separator, encoding)
    except DataError:
        columns = []
    known = f", one of: {truncate(', '.join(columns), 200)}" if columns else ""
    return DataError(
        f"{file}: is a table, and a model of it would learn its syntax; set dataset.text_column{known}, or name the "
        "file .txt to learn it as it stands"
    )
