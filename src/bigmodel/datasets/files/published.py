"""Files as authors publish them, with known hashes and sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bigmodel.datasets.files.archive import open_maybe_gzipped
from bigmodel.errors import DataError

_GZIP_RATIO = 1032  # deflate cannot do better


@dataclass(frozen=True)
class PublishedFile:
    """A file as its authors publish it; `md5` None where they publish none. Without a size, only that file will do."""

    name: str
    md5: str | None
    size: int | None = None

    def find(self, folder: Path) -> Path | None:
        """Return the file in this folder, plain or gzipped."""
        candidates = (folder / self.name, folder / f"{self.name}.gz")
        return next((path for path in candidates if path.is_file()), None)

    def blocks(self, path: Path, block_bytes: int) -> Iterator[bytes]:
        """Yield the content, decompressed, a block at a time; every block but the last is full.

        Raises:
            DataError: the file is damaged, or has the published size (or none is known) but not the published hash.
        """
        state = hashlib.md5(usedforsecurity=False)
        size = 0
        with open_maybe_gzipped(path) as file:
            while block := file.read(block_bytes):
                state.update(block)
                size += len(block)
                yield block
        if self.md5 is not None and self.size in (None, size) and state.hexdigest() != self.md5:
            raise DataError(
                f"{path.absolute()}: damaged: its md5 is {state.hexdigest()}, the published one {self.md5}; "
                "delete it and get it again"
            )

    def verify(self, path: Path) -> None:
        """Read the file once for its hash alone; raises DataError as `blocks` does."""
        for _ in self.blocks(path, 1 << 20):
            pass


def check_size(path: Path, expected: int) -> None:
    """Raise DataError unless the file can hold this many bytes; of a gzipped file this is only a bound."""
    size = path.stat().st_size
    if expected > size * _GZIP_RATIO if path.suffix == ".gz" else expected != size:
        raise DataError(f"{path.absolute()}: {size} bytes, where its header promises {expected}; get it again")


def fingerprint_files(entries: Iterable[tuple[str, int]]) -> str:
    """Hash of the names and sizes of a dataset's files."""
    state = hashlib.md5(usedforsecurity=False)
    for name, size in entries:
        state.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return f"md5:{state.hexdigest()}"
