"""Read and write files safely: only regular files, bounded in size, whole, and never through a link.

A run's or a sweep's directory may itself be reached through links; below it every name is the run's own. Imports no
torch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import TextIO

from bigmodel.errors import StorageError

TEMP_PREFIX = ".tmp-"  # what a name begins with until the file is whole
LARGEST_JSON = 1 << 28  # bytes; a state.json holds vocabularies
LARGEST_LINES = 1 << 31  # bytes of a metrics.jsonl or a journal
_LARGEST_HEADER = 8 << 20  # bytes of a safetensors file that name its tensors: some 50,000
_BLOCK = 1 << 20
_SPARSE_FROM, _SPARSE = 64 << 20, 1000  # bytes of a file, and how many times as many as there are on the disk
_STORAGE = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EACCES", "EPERM", "ENOENT", "ELOOP", "EISDIR", "ENOTDIR"),
    *("EEXIST", "ENXIO", "ENOTEMPTY", "EMFILE", "ENFILE", "ESTALE", "EBUSY", "ETXTBSY", "ENOLCK", "ENOSYS"),
    *("EOPNOTSUPP", "EREMOTEIO", "ENOTCONN", "EHOSTDOWN", "ENODEV", "ETIMEDOUT", "ENAMETOOLONG", "EINTR", "EXDEV"),
    *("EUCLEAN", "EBADMSG", "EILSEQ", "EMLINK", "ENOMEDIUM", "ENOKEY", "EPROTO", "ECONNRESET", "ECONNABORTED"),
    *("EHOSTUNREACH", "ENETUNREACH", "ENETDOWN"),
)
STORAGE_ERRORS = frozenset(getattr(errno, name) for name in _STORAGE if hasattr(errno, name))  # not all are macOS's
"""`errno`s of OSErrors that a disk, a file system or a foreign file causes, not a bug."""


def open_regular(path: str | os.PathLike[str], largest: int | None = None) -> BufferedReader:
    """Open a regular file for reading bytes; links are followed. A pipe or a device is refused, not waited for.

    Raises:
        OSError: the file cannot be opened, is no regular file, or is larger than `largest` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket cannot be opened
            raise OSError(error.errno, "is a socket or a device, not a file", os.fspath(path)) from None
        raise
    try:
        _hold(descriptor, path, largest)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str], largest: int = LARGEST_JSON) -> bytes:
    """Read a regular file of at most `largest` bytes. Raises OSError as `open_regular`."""
    content = bytearray()
    with open_regular(path, largest) as file:
        while block := file.read(_BLOCK):
            content += block
            if len(content) > largest:  # a file of /proc has a size of 0, others may grow while they are read
                raise OSError(errno.EFBIG, f"more than {largest} bytes are too many", os.fspath(path))
    return bytes(content)


def read_text(path: str | os.PathLike[str], largest: int = LARGEST_JSON) -> str:
    """Read a regular file as UTF-8. Raises OSError as `open_regular`, and UnicodeDecodeError."""
    return read_bytes(path, largest).decode("utf-8")


def refuse_many_tensors(file: Path) -> None:
    """Check the size of a safetensors header: one that names 200,000 tensors takes minutes to load.

    Raises:
        OSError: as `open_regular`.
        ValueError: the header is too long.
    """
    with open_regular(file) as stream:
        size = int.from_bytes(stream.read(8), "little")
    if _LARGEST_HEADER < size <= file.stat().st_size:  # a longer one than the file is damage, which its reader names
        raise ValueError(f"a header of {size} bytes, more than {_LARGEST_HEADER}, names too many tensors")


def refuse_large(sizes: Mapping[Path, int], fits_memory: bool = True) -> None:
    """Check the sizes of a checkpoint's files before they are hashed or parsed; all together, if they are to fit the
    memory. Raises OSError or ValueError.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if fits_memory and sum(sizes.values()) > memory:
        raise ValueError(f"{sum(sizes.values())} bytes, where this machine's memory has {memory}")
    for file, size in sizes.items():
        if file.suffix == ".safetensors":
            refuse_many_tensors(file)
        elif size > LARGEST_JSON:
            raise ValueError(f"{file.name} has {size} bytes; more than {LARGEST_JSON} are too many")


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is the old one or the new one, whole, whenever the machine stops."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new name beside `path`, with its suffix; what is written there becomes `path`, synced.

    A link, a pipe or another file in its place is gone then, and what a link pointed at is as it was.

    Raises:
        OSError: `path` is a directory, or the disk refuses; then nothing is left under the new name.
    """
    scratch = path.with_name(f"{TEMP_PREFIX}{os.urandom(16).hex()}{path.suffix}")
    try:
        yield scratch
        fsync_path(scratch)
        os.rename(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def open_own(path: Path, flags: int = os.O_WRONLY | os.O_APPEND) -> int:
    """Open a file of a run's or a sweep's own for writing, new or as it is, and return its descriptor.

    Raises:
        OSError: the name is a link, of either kind, or no regular file; or the disk refuses.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # ENXIO: a pipe that nobody reads, or a socket
            raise _not_own(error.errno, "a link" if path.is_symlink() else "no regular file", path) from None
        raise
    try:
        if _hold(descriptor, path, None).st_nlink > 1:  # the other name may be anybody's
            raise _not_own(errno.ELOOP, "a hard link", path)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def append_to(path: Path, buffering: int = -1) -> TextIO:
    """Open a text file of a run's or a sweep's own to add to it. Raises OSError as `open_own`."""
    return open(open_own(path), "a", buffering=buffering, encoding="utf-8")


def own_folder(path: Path) -> Path:
    """Make a folder below a run's or a sweep's directory, unless it is there.

    Raises:
        OSError: the name is a link or no directory; or the disk refuses.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        fsync_directory(path.parent)
    refuse_foreign_folder(path)
    return path


def refuse_foreign_folder(path: Path) -> None:
    """Raise OSError where a name below a run's or a sweep's directory is there, and is a link or no directory."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise _not_own(errno.ELOOP, "a link", path)
        if not stat.S_ISDIR(mode):
            raise _not_own(errno.ENOTDIR, "no directory", path)


def refuse_foreign_files(folder: Path) -> None:
    """Raise OSError where a folder of a sweep is a link, or holds a link, a folder or a pipe."""
    refuse_foreign_folder(folder)
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
                what = "a link" if stat.S_ISREG(found.st_mode) or entry.is_symlink() else "no regular file"
                raise _not_own(errno.ELOOP, what, folder / entry.name)


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with all in it; what a link points at stays. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # imports five compressors, which an answer to a mistake need not wait for

        shutil.rmtree(path)
    else:
        path.unlink()


def try_remove(path: Path) -> None:
    """Remove what may be in use, as where NFS keeps a removed file until it is closed: the next start tries again."""
    with contextlib.suppress(OSError):
        remove(path)


def errno_in(text: str) -> int:
    """Return the system's error number from a message of safetensors, `... (os error 28)`."""
    _, _, tail = text.partition("os error ")
    digits = tail.partition(")")[0]
    return int(digits) if digits.isdigit() else 5


def system_error_in(error: Exception) -> OSError | None:
    """Return the OSError that a library of another language reports as text, as `Too many open files (24)`."""
    text = str(error)
    for number in STORAGE_ERRORS:
        if f"{os.strerror(number)} ({number})" in text or f"(os error {number})" in text:
            return OSError(number, os.strerror(number))
    return None


def fsync_path(path: Path) -> None:
    """Make the kernel write a file's contents to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


fsync_directory = fsync_path  # the same two calls put a directory's entries on the disk


def _hold(descriptor: int, path: str | os.PathLike[str], largest: int | None) -> os.stat_result:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.ENXIO
        raise OSError(code, f"is {kind_of(found.st_mode)}, not a file", os.fspath(path))
    few = found.st_size > _SPARSE_FROM and 512 * found.st_blocks < found.st_size // _SPARSE
    if few and _is_hole(descriptor, found):
        raise OSError(errno.EFBIG, f"a sparse file: {found.st_size} bytes, almost none of which are stored", str(path))
    if largest is not None and found.st_size > largest:
        raise OSError(errno.EFBIG, f"{found.st_size} bytes, more than {largest}, are too many", os.fspath(path))
    return found


def kind_of(mode: int) -> str:
    """Name the kind of what is at a path, from its mode, as `a pipe`."""
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def is_there(path: Path) -> bool:
    """Return whether a name is taken, also by a dangling link.

    Raises:
        OSError: the folder it would be in cannot be listed, as where it belongs to another user.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def entries(folder: Path) -> list[Path]:
    """List what is in a folder, in no order; nothing where there is no folder.

    `Path.glob` would find nothing in a folder that may not be read, and a run of another user would look empty.
    Raises StorageError where it may not be read, or is a loop of links.
    """
    try:
        return [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP):
            raise
        raise StorageError(f"{folder}: cannot be listed: {error.strerror or error}") from error


def _is_hole(descriptor: int, found: os.stat_result) -> bool:
    """Return whether a file is one hole except its ends; False on file systems that do not report holes, as FUSE."""
    try:
        end = os.lseek(descriptor, found.st_size // 2, os.SEEK_HOLE)
    except (OSError, AttributeError):
        return False
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return end < found.st_size


def _not_own(code: int, what: str, path: Path) -> OSError:
    return OSError(code, f"{path.name} is {what}, where this tool writes a file of its own; remove it", str(path))
