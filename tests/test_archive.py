"""Archives that try to write where they must not, or more than they may."""

import errno
import gzip
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from bigmodel.datasets.files import archive as module
from bigmodel.datasets.files.archive import extract, open_maybe_gzipped, uncompressed_size
from bigmodel.datasets.files.text_archives import iter_samples
from bigmodel.errors import DataError, StorageError


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"content") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir())


def test_the_folder_appears_whole(tmp_path):
    set_uid = file("data/deep/a.bin", b"a" * 3_000_000)
    set_uid[0].mode = 0o6777
    packed = pack(tmp_path / "a.tar.gz", file("data/b.bin"), set_uid)
    extract(packed, tmp_path / "data")
    assert (tmp_path / "data/deep/a.bin").read_bytes() == b"a" * 3_000_000
    assert (tmp_path / "data/deep/a.bin").stat().st_mode & 0o7000 == 0
    assert left(tmp_path) == ["a.tar.gz", "data"]


def test_an_archive_that_is_one_hole_is_refused_at_once(tmp_path):
    with (tmp_path / "a.tar").open("wb") as stream:
        stream.truncate(40 << 30)  # which xz would read to its end, as padding
    with pytest.raises(DataError, match="a sparse file"):
        extract(tmp_path / "a.tar", tmp_path / "data")
    with pytest.raises(DataError, match="a sparse file"):
        list(iter_samples(tmp_path / "a.tar"))
    assert left(tmp_path) == ["a.tar"]


def test_a_folder_that_is_there_stays(tmp_path):
    packed = pack(tmp_path / "a.tar.gz", file("data/b.bin"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.bin").write_bytes(b"other")
    extract(packed, tmp_path / "data")
    assert (tmp_path / "data" / "b.bin").read_bytes() == b"other"


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (file("../evil"), "outside"),
        (file("data/../../evil"), "outside"),
        (file("/tmp/evil"), "outside"),
        (file("data\\..\\evil"), "outside"),
        (special("data/link", tarfile.SYMTYPE, "/etc"), "link or a device"),
        (special("data/link", tarfile.LNKTYPE, "data/b.bin"), "link or a device"),
        (special("data/zero", tarfile.CHRTYPE), "link or a device"),
        (special("data/disk", tarfile.BLKTYPE), "link or a device"),
        (special("data/pipe", tarfile.FIFOTYPE), "link or a device"),
    ],
)
def test_what_does_not_stay_inside_is_refused(tmp_path, member, words):
    packed = pack(tmp_path / "a.tar.gz", file("data/b.bin"), member)
    with pytest.raises(DataError, match=words):
        extract(packed, tmp_path / "data")
    assert left(tmp_path) == ["a.tar.gz"]
    assert not (tmp_path.parent / "evil").exists()


def test_a_bomb_is_refused(tmp_path):
    packed = pack(tmp_path / "a.tar.gz", file("data/zeros", bytes(10_000_000)))
    with pytest.raises(DataError, match="unpacks to more than 1000000 bytes"):
        extract(packed, tmp_path / "data", max_bytes=1_000_000)
    packed = pack(tmp_path / "a.tar.gz", *[file(f"data/{number}") for number in range(9)])
    with pytest.raises(DataError, match="or 8 files"):
        extract(packed, tmp_path / "data", max_members=8)
    assert left(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_damage_is_refused(tmp_path, content):
    packed = pack(tmp_path / "a.tar.gz", file("data/b.bin", bytes(range(256)) * 400))
    packed.write_bytes(packed.read_bytes()[:-60] if content is None else content)
    with pytest.raises(DataError, match=r"a.tar.gz: damaged or cut off"):
        extract(packed, tmp_path / "data")
    assert left(tmp_path) == ["a.tar.gz"]


def test_an_archive_of_something_else_or_none_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no folder data"):
        extract(pack(tmp_path / "a.tar.gz", file("other/b.bin")), tmp_path / "data")
    with pytest.raises(DataError, match=r"gone.tar.gz: cannot be read: No such file"):
        extract(tmp_path / "gone.tar.gz", tmp_path / "data")


def test_a_name_twice_does_not_overwrite(tmp_path):
    for second in ("data/b", "data/b/c"):
        with pytest.raises(DataError, match=f"holds '{second}' twice"):
            extract(pack(tmp_path / "a.tar.gz", file("data/b"), file(second)), tmp_path / "data")
        assert left(tmp_path) == ["a.tar.gz"]


def test_a_flipped_bit_that_only_the_checksum_tells_is_refused(tmp_path):
    packed = pack(tmp_path / "a.tar.gz", file("data/b", random.Random(0).randbytes(50_000)))
    content = bytearray(packed.read_bytes())
    content[25_000] ^= 1  # random bytes are stored as they are, so it still decompresses
    packed.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged or cut off \(CRC check failed"):
        extract(packed, tmp_path / "data")
    assert left(tmp_path) == ["a.tar.gz"]


def test_zeros_without_end_after_the_last_file_are_refused(tmp_path):
    packed = pack(tmp_path / "a.tar", file("data/b"))
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(gzip.decompress((tmp_path / "a.tar").read_bytes()) + bytes(5_000_000)))
    with pytest.raises(DataError, match="unpacks to more than 1000000 bytes"):
        extract(packed, tmp_path / "data", max_bytes=1_000_000)


def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    opened = os.open

    def full(path, flags, *rest, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, flags, *rest, **options)

    packed = pack(tmp_path / "a.tar.gz", file("data/b.bin"))
    monkeypatch.setattr(module.os, "open", full)
    with pytest.raises(StorageError, match="No space left"):
        extract(packed, tmp_path / "data")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("size", [10, 5_000_000])  # less and more than a buffer
def test_a_write_that_fails_is_not_told_as_a_read(tmp_path, monkeypatch, size):
    opened = os.open

    def full(path, *rest, **options):
        return opened("/dev/full", os.O_WRONLY) if str(path).endswith("data/b") else opened(path, *rest, **options)

    packed = pack(tmp_path / "a.tar.gz", file("data/b", bytes(size)))
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StorageError, match="No space left"):
        extract(packed, tmp_path / "data")


def test_gzip_files_open_and_measure_as_their_content(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 5_000_000))
    (tmp_path / "a").write_bytes(b"x" * 5)
    assert (uncompressed_size(tmp_path / "a.gz"), uncompressed_size(tmp_path / "a")) == (5_000_000, 5)
    with open_maybe_gzipped(tmp_path / "a.gz") as stream:
        assert stream.read(3) == b"xxx"
