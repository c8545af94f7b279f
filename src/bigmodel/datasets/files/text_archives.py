"""Texts in a tar as webdataset lays them out: `KEY.txt`, and for a labelled text `KEY.cls`, next to each other."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from bigmodel.datasets.files.archive import open_tar
from bigmodel.errors import DataError
from bigmodel.formatting import first_line

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_LARGEST = 64 << 20  # bytes of one member
_MOST = 64 << 30  # bytes of all that are read


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def iter_samples(archive: Path) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """Yield each key with its parts by suffix without the dot, as `txt`; nothing is unpacked to disk.

    Raises:
        DataError: the archive is damaged, or a member is larger than any text.
    """
    key = ""
    parts = dict[str, bytes]()
    room = _MOST
    try:
        with open_tar(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                stem, _, suffix = path.name.partition(".")
                if not member.isreg() or not stem:
                    continue
                room -= member.size
                if member.size > _LARGEST or room < 0:
                    raise DataError(
                        f"{archive}: '{member.name}': {member.size:,} bytes exceed the {_LARGEST:,} of one text"
                    )
                own = str(path.parent / stem)
                if own != key and parts:
                    yield key, parts
                    parts = {}
                content = tar.extractfile(member)
                key = own
                parts[suffix.lower()] = content.read() if content else b""
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{archive}: cannot be read as a tar: {first_line(error)}; get it again") from error
    if parts:
        yield key, parts
