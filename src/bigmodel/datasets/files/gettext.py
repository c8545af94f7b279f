"""Read gettext's catalogues of translated messages (GNU gettext manual, "The Format of GNU MO Files").

Most Linux machines hold thousands of them.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from bigmodel.errors import DataError
from bigmodel.safe_files import read_bytes

_MAGIC = 0x950412DE
_WORD = 4  # bytes


def find_catalogue(folder: str, language: str, name: str, package: str | None) -> Path:
    """Path of a catalogue's file.

    Raises:
        DataError: there is none; `package` is that of Debian which holds it.
    """
    path = Path(folder).expanduser() / language / "LC_MESSAGES" / f"{name}.mo"
    if not path.is_file():
        how = f"; on Debian and its kin: apt install {package}" if package else ""
        raise DataError(f"dataset.names: there is no '{path}'{how}; dataset.folder says where catalogues lie")
    return path


def read_catalogue(file: Path) -> list[tuple[str, str]]:
    """Read messages and their translations, in the file's order: those of one line, without plurals.

    Raises:
        DataError: the file cannot be read, or is no catalogue.
    """
    try:
        content = read_bytes(file)
        order = "<" if struct.unpack_from("<I", content)[0] == _MAGIC else ">"
        magic, _, count, *tables = struct.unpack_from(f"{order}5I", content)
        if magic != _MAGIC or len(content) < max(tables) + 2 * _WORD * count:
            raise ValueError("it does not begin as one, or is cut off")
        texts = [[_text(content, order, table + 2 * _WORD * n) for table in tables] for n in range(count)]
        head = dict(texts).get(b"", b"")
        charset = re.search(rb"charset=([\w-]+)", head)
        coding = charset[1].decode() if charset else "utf-8"
        pairs = [
            (source.rpartition(b"\4")[2].decode(coding).strip(), target.decode(coding).strip())  # before \4: a context
            for source, target in texts
            if b"\0" not in source
        ]
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise DataError(f"{file}: cannot be read as a catalogue of gettext: {error}") from error
    return [pair for pair in pairs if all(pair) and not any("\n" in text for text in pair)]


def _text(content: bytes, order: str, place: int) -> bytes:
    length, first = struct.unpack_from(f"{order}2I", content, place)
    if first + length > len(content):
        raise ValueError("it is cut off")
    return content[first : first + length]
