"""Extract untrusted archives safely: tar archives, gzip files and pickled arrays, within bounds. Imports no torch."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

import numpy as np

from bigmodel.errors import DataError, StorageError
from bigmodel.safe_files import open_regular

_BLOCK = 1 << 20


def extract(archive: Path, folder: Path, *, max_bytes: int = 2 << 30, max_members: int = 10_000) -> None:
    """Extract the archive's top folder named `folder.name` to `folder`, whole or not at all.

    Takes plain files and folders only, under names that stay inside. If another process was faster, its folder stays.

    Raises:
        DataError: the archive is damaged, lacks the folder, holds anything else, or is larger than the bounds.
        StorageError: the files cannot be written.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            with _translate_read_errors(archive), open_tar(archive) as tar:
                _unpack(archive, tar, scratch, max_bytes, max_members)
            unpacked = scratch / folder.name
            if not unpacked.is_dir():
                raise DataError(f"{archive.absolute()}: holds no folder {folder.name}")
            try:
                os.rename(unpacked, folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        room = _space_hint(archive, folder) if error.errno == errno.ENOSPC else ""
        raise StorageError(f"{folder.absolute()}: cannot be written: {error.strerror or error}{room}") from error


def _space_hint(archive: Path, folder: Path) -> str:
    """Describe the needed and the free space, after the partial extraction was removed. Reads the archive again."""
    try:
        with open_tar(archive) as tar:
            needed = sum(member.size for member in tar)
    except (OSError, EOFError, tarfile.TarError, zlib.error):  # it is damaged further on, too
        return ""
    return f" ({needed / 1e6:.1f} MB needed, {shutil.disk_usage(folder.parent).free / 1e6:.1f} MB free)"


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive of any compression. A sparse file, which xz would read to its end, is refused.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        TarError: it is no archive.
    """
    with open_regular(path) as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        yield tar


@contextmanager
def open_maybe_gzipped(path: Path) -> Iterator[BinaryIO]:
    """Open a file's content as bytes, decompressed if its name ends in .gz.

    Raises:
        DataError: the file cannot be read, or what is read inside the block turns out to be damaged.
    """
    with _translate_read_errors(path), open_regular(path) as raw:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw)


def uncompressed_size(path: Path) -> int:
    """Size of the file in bytes once decompressed; a .gz file is decompressed to count it."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with open_maybe_gzipped(path) as file:
        return sum(len(block) for block in iter(lambda: file.read(_BLOCK), b""))


def load_numpy_pickle(stream: BinaryIO, path: Path) -> Any:
    """Load a pickle of plain values and numpy arrays only; texts of Python 2 become bytes, `path` is for errors.

    Raises:
        DataError: the pickle is damaged or asks for anything else; nothing of it has then been called.
    """
    try:
        return _ArrayUnpickler(stream, encoding="bytes").load()
    except (pickle.UnpicklingError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path.absolute()}: not a pickle of arrays: {error}") from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if module == "numpy" and name == "dtype":
            return _number
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _number(kind: bytes | str, align: int = 0, copy: int = 0) -> np.dtype[Any]:
    """np.dtype for numbers only, without its warning about the `align=0` of old pickles."""
    text = kind.decode("ascii") if isinstance(kind, bytes) else kind
    if np.dtype(text).kind not in "iuf":
        raise pickle.UnpicklingError(f"it holds values of type {text}")
    return np.dtype(text)


@contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = str(error).partition(":\n")[0]  # tarfile lists each way in which it tried to read
        raise DataError(f"{path.absolute()}: damaged or cut off ({reason}); delete it and get it again") from error
    except _WriteError as error:
        raise error.cause from error
    except OSError as error:
        raise DataError(f"{path.absolute()}: cannot be read: {error.strerror or error}") from error


class _WriteError(Exception):
    """Failed write, kept apart from failed reads: both are OSError, and need different messages."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _unpack(archive: Path, tar: tarfile.TarFile, scratch: Path, max_bytes: int, max_members: int) -> None:
    room = max_bytes
    for count, member in enumerate(tar, 1):
        path = _safe_member_path(archive, member)
        room -= member.size
        if room < 0 or count > max_members:
            raise DataError(f"{archive.absolute()}: unpacks to more than {max_bytes} bytes or {max_members} files")
        content = tar.extractfile(member) if member.isreg() else None
        try:
            _write(content, scratch / path)
        except (FileExistsError, NotADirectoryError) as error:
            raise DataError(f"{archive.absolute()}: holds '{member.name}' twice, or a file as a folder") from error
    rest = cast(IO[bytes], tar.fileobj)
    while block := rest.read(_BLOCK):  # gzip's checksum comes last, and is held against the content only there
        room -= len(block)
        if room < 0:
            raise DataError(f"{archive.absolute()}: unpacks to more than {max_bytes} bytes")


def _safe_member_path(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    """Return the member's path; DataError unless it is a plain file or a folder below the archive's root."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise DataError(f"{archive.absolute()}: '{member.name}' would be written outside of its folder")
    if not (member.isreg() or member.isdir()):
        raise DataError(f"{archive.absolute()}: '{member.name}' is a link or a device, not a file")
    return path


def _write(content: IO[bytes] | None, path: Path) -> None:
    """Write a file, or a folder if there is no content. Nothing is overwritten; owner, mode and time are not kept."""
    with _writing():
        (path.parent if content else path).mkdir(parents=True, exist_ok=True)
    if content is None:
        return
    with _writing():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with open(
        descriptor, "wb", buffering=0
    ) as target:  # a buffer would be written again on closing, and fail as a read
        while block := content.read(_BLOCK):
            rest = memoryview(block)
            with _writing():
                while rest:
                    rest = rest[target.write(rest) :]


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError):  # only the archive itself can have put it there
        raise
    except OSError as error:
        raise _WriteError(error) from error
