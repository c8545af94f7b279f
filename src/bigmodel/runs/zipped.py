"""Load a checkpoint from a .zip of its folder, as a stranger may send it: plain files of one folder, within bounds."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from bigmodel.errors import StorageError
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint import Checkpoint
from bigmodel.runs.signature import check_signature
from bigmodel.safe_files import open_regular

_MOST_FILES = 1000
_LONGEST_NAME = 255
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BLOCK = 1 << 20


def load_zipped(path: Path) -> tuple[Checkpoint, list[str]]:
    """Unpack into a temporary folder, verify and load the checkpoint there, and remove the folder; return warnings too.

    Raises:
        StorageError: the archive is damaged, holds anything but plain files of one folder, or more than fits the
            memory; or a file is not as its manifest says.
    """
    scratch = Path(tempfile.mkdtemp(prefix="bigmodel-"))
    try:
        _unpack(path, scratch)
        warnings = check_signature(scratch, str(path))
        found = checkpoint.load(scratch)
        return dataclasses.replace(found, path=path), warnings
    except StorageError as error:
        raise StorageError(*(line.replace(str(scratch), str(path)) for line in error.lines)) from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise StorageError(f"{path}: is damaged, or no zip archive: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    with open_regular(path) as raw, zipfile.ZipFile(raw) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > _MOST_FILES:
            raise StorageError(f"{path}: holds {len(members)} files; more than {_MOST_FILES} are too many")
        names = [_checked_name(path, member) for member in members]
        tops = {name.parent for name in names}
        if len(tops) != 1 or len({name.name for name in names}) != len(names):
            raise StorageError(f"{path}: must hold the files of one folder, each once")
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if sum(member.file_size for member in members) > memory:
            raise StorageError(f"{path}: unpacks to more than this machine's memory of {memory} bytes")
        for member, name in zip(members, names, strict=True):
            _write(path, archive, member, folder / name.name)


def _checked_name(path: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    """Return the name of a plain file; StorageError for a link, or a name that leads out of its folder."""
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or len(name.name) > _LONGEST_NAME:
        raise StorageError(f"{path}: {member.filename[:80]!a} would be written outside of its folder")
    if kind not in (0, stat.S_IFREG):
        raise StorageError(f"{path}: {member.filename[:80]!a} is a link or a device, not a file")
    if member.flag_bits & 1 or member.compress_type not in _METHODS:
        raise StorageError(f"{path}: {member.filename[:80]!a} is encrypted, or compressed in another way than deflate")
    return name


def _write(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one file; it may not be longer than the archive's directory says, which was added up."""
    room = member.file_size
    with archive.open(member) as source, open(target, "xb") as file:
        while block := source.read(_BLOCK):
            room -= len(block)
            if room < 0:
                raise StorageError(f"{path}: {member.filename[:80]!a} is longer than it claims")
            file.write(block)
