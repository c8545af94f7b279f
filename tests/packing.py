"""The archive of a small CIFAR-10, and all the ways in which a stranger might pack another in its place."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

NAME, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
MEMBERS = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
Packer = Callable[[Path, random.Random], None]


def _records(seed: int) -> bytes:
    rows = np.random.default_rng(seed).integers(0, 256, (20, 3073), np.uint8)
    rows[:, 0] = np.arange(20) % 10
    return rows.tobytes()


GOOD = [(f"{FOLDER}/{name}", _records(seed)) for seed, name in enumerate(MEMBERS)]


def _info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def packed(path: Path, *more: tuple[tarfile.TarInfo, bytes], first: bool = False) -> None:
    """The good files, with others before or after them."""
    good = [(_info(name), content) for name, content in GOOD]
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for info, content in (*more, *good) if first else (*good, *more):
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _truncated(path: Path, chance: random.Random) -> None:
    packed(path)
    os.truncate(path, chance.randrange(path.stat().st_size - 100))


def _flipped(path: Path, chance: random.Random) -> None:
    """Inside the compressed stream, where gzip's own checksum tells."""
    packed(path)
    content = bytearray(path.read_bytes())
    content[chance.randrange(50, len(content) - 50)] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _garbage(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.randrange(1, 10_000)))


def _zipped_garbage(path: Path, chance: random.Random) -> None:
    path.write_bytes(gzip.compress(chance.randbytes(10_000)))


def _empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def _traversal(path: Path, chance: random.Random) -> None:
    up = "../" * chance.randrange(1, 9)
    name = chance.choice([f"{up}evil", f"{FOLDER}/{up}../evil", f"{FOLDER}/./../../evil", f"{FOLDER}\\..\\..\\evil"])
    packed(path, (_info(name), b"evil"), first=chance.random() < 0.5)


def _absolute(path: Path, chance: random.Random) -> None:
    name = chance.choice([f"{path.parent.parent}/evil", f"//{path.parent.parent}/evil", "/etc/bigmodel-evil"])
    packed(path, (_info(name), b"evil"), first=chance.random() < 0.5)


def _through_a_link(path: Path, chance: random.Random) -> None:
    """A link to outside, then a file written through it."""
    kind = chance.choice([tarfile.SYMTYPE, tarfile.LNKTYPE])
    outside = chance.choice(["../..", str(path.parent.parent), "../../canary"])
    link = (_info(f"{FOLDER}/link", kind, outside), b"")
    packed(path, link, (_info(f"{FOLDER}/link/evil"), b"evil"), first=chance.random() < 0.5)


def _device(path: Path, chance: random.Random) -> None:
    kind = chance.choice([tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
    info = _info(f"{FOLDER}/{chance.choice(MEMBERS)}", kind)
    info.devmajor, info.devminor = 1, 3
    packed(path, (info, b""), first=True)


def _large(path: Path, chance: random.Random) -> None:
    packed(path, (_info(f"{FOLDER}/zeros"), bytes(8_000_000)), first=chance.random() < 0.5)


def _many(path: Path, chance: random.Random) -> None:
    packed(path, *((_info(f"{FOLDER}/{number}"), b"") for number in range(300)), first=chance.random() < 0.5)


def _gzip_bomb(path: Path, chance: random.Random) -> None:
    """Zeros without end where members should be: a tar that says it holds 1 TB and compresses to nearly nothing."""
    info = _info(f"{FOLDER}/zeros")
    info.size = 1 << 40
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(chance.randrange(20, 60)):
            file.write(bytes(1 << 20))


def _twice(path: Path, chance: random.Random) -> None:
    name, _ = chance.choice(GOOD)
    packed(path, (_info(name), b"another"), first=chance.random() < 0.5)


def incomplete(path: Path, chance: random.Random) -> None:
    left_out = chance.randrange(len(GOOD))
    with tarfile.open(path, "w:gz") as tar:
        for number, (name, content) in enumerate(GOOD):
            info = _info(name if number != left_out else f"{name}.old")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


BAD: tuple[Packer, ...] = (
    _truncated,
    _traversal,
    _through_a_link,
    _device,
    _large,
    _many,
    _gzip_bomb,
    _twice,
    _absolute,
    _garbage,
    _flipped,
    _zipped_garbage,
    _empty,
    incomplete,
)
