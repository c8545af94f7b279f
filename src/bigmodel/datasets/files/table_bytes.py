"""Read the content of a table's file: regular files only, decompressed, and no more than fits in memory."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from bigmodel.datasets.files.archive import open_maybe_gzipped
from bigmodel.datasets.files.text_encoding import codec_name, decode, explain_undecodable
from bigmodel.errors import DataError
from bigmodel.formatting import format_si, truncate

STDIN = "-"
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_BLOCK = 1 << 24  # bytes
COPIES = 3  # of a table that are in memory while it is read: in pieces, whole, and as columns
_CONVERT = {
    ".xlsx": "an Excel workbook; save the sheet as CSV (UTF-8)",
    ".xls": "an Excel workbook; save the sheet as CSV (UTF-8)",
    ".ods": "a spreadsheet; save the sheet as CSV (UTF-8)",
    ".pkl": "a pickle, which can run code when it is read; write it as Parquet: frame.to_parquet(...)",
    ".h5": "HDF5; write the table as Parquet: pandas.read_hdf(...).to_parquet(...)",
    ".db": "a database; export the table as CSV",
    ".sqlite": "a database; export the table as CSV",
    ".orc": "ORC; write the table as Parquet: pyarrow.orc.read_table(...)",
    ".zip": "a zip archive; unpack it",
    ".rds": "R's own format; write the table as CSV: write.csv(...)",
    ".sav": "SPSS's own format; save it as CSV",
    ".dta": "Stata's own format; save it as CSV",
}


def bare_name(file: str) -> str:
    """Return the file's name in lower case without the ending of a compression."""
    name = Path(file).name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name


def check_readable(path: Path) -> int:
    """Return the file's size in bytes. It is not opened, for opening a pipe can wait forever.

    Raises:
        DataError: it is no regular file, is larger than this computer's memory, or is of a kind that must be converted.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, a pipe or a socket"
        raise DataError(f"{path}: is {what}, not a regular file")
    if what := _CONVERT.get(Path(bare_name(str(path))).suffix) or _CONVERT.get(path.suffix.lower(), ""):
        raise DataError(f"{path}: is {what}")
    if status.st_size > total_memory():
        raise too_large_error(path, status.st_size)
    return status.st_size


def total_memory() -> int:
    """Memory of this computer in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def too_large_error(file: str | Path, size: int) -> DataError:
    return DataError(
        f"{file}: {format_si(size, 'B')} or more do not fit in this computer's memory of {_memory_in_words()}, "
        f"which reading a table takes {COPIES} times; split it"
    )


def _memory_in_words() -> str:
    return format_si(total_memory(), "B")


def text_bytes(file: str | Path, encoding: str | None) -> bytes:
    """Return the text of a file, or of the standard input for `-`, in UTF-8 without a byte order mark.

    Raises:
        ConfigError: there is no such encoding.
        DataError: the file is damaged, too large, or not text in this encoding.
    """
    name = codec_name(encoding)
    content = _content(file, text=name == "utf-8-sig")
    if name != "utf-8-sig":
        return decode(content, str(file), encoding).encode("utf-8", "replace")
    content = content.removeprefix(codecs.BOM_UTF8)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content), _BLOCK):
            decoder.decode(content[start : start + _BLOCK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise explain_undecodable(content, str(file), encoding) from error
    return content


def _content(file: str | Path, text: bool) -> bytes:
    if str(file) == STDIN:
        raw = getattr(sys.stdin, "buffer", None)
        stream = cast(BinaryIO, raw or io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape")))
        return _read_within_memory(stream, STDIN, text)
    path = Path(file)
    check_readable(path)
    with _open_decompressed(path) as stream:
        return _read_within_memory(stream, str(file), text)


def _read_within_memory(stream: BinaryIO, file: str, text: bool) -> bytes:
    blocks: list[bytes] = []
    size = 0
    limit = total_memory() // COPIES
    while block := stream.read(_BLOCK):
        if text and b"\0" in block:  # a sparse file is told at its first block
            raise explain_undecodable(b"".join([*blocks, block]), file, None)
        size += len(block)
        if size > limit:
            raise too_large_error(file, size)
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


@contextmanager
def _open_decompressed(path: Path) -> Iterator[BinaryIO]:
    ending = path.suffix.lower()
    if ending not in (".zst", ".bz2", ".xz"):
        with open_maybe_gzipped(path) as stream:
            yield stream
        return
    try:
        if ending == ".zst":
            import pyarrow

            with pyarrow.input_stream(str(path), compression="zstd") as stream:
                yield stream
        else:
            with bz2.open(path) if ending == ".bz2" else lzma.open(path) as stream:
                yield cast(BinaryIO, stream)
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(f"{path}: damaged or cut off ({truncate(error)}); delete it and get it again") from error
