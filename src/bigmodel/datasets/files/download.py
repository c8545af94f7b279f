"""One file over HTTP: resumed where it broke off, verified, and only then put in place. Imports no torch."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TextIO
from urllib.parse import urlsplit

from bigmodel.errors import ConfigError, DataError, StorageError
from bigmodel.safe_files import open_own, open_regular

Progress = Callable[[int, int | None], None]  # bytes here so far, bytes in all where the server says so
_BLOCK = 1 << 20
_TIMEOUT_S = 30.0


def mirror_url(url: str, mirror: str | None) -> str:
    """`url` with everything before the file name replaced by `mirror`."""
    return url if mirror is None else f"{mirror.rstrip('/')}/{url.rpartition('/')[2]}"


def file_hash(path: Path, algorithm: str) -> str:
    """Return the file's hash in hexadecimal, read a block at a time."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def ensure_file(url: str, target: Path, md5: str, download: bool, mirror: str | None, sought: str) -> None:
    """Download what was `sought` (what, and where) in vain.

    Raises:
        DataError: it is not to be downloaded, or cannot be; says how else to get it.
    """
    source = mirror_url(url, mirror)
    advice = f"dataset: found no {sought}; get {source} and put it there, or set data_dir="
    if not download:
        raise DataError(f"{advice}, or set dataset.download=true")
    try:
        download_file(source, target, md5=md5)
    except DataError as error:
        raise DataError(f"{'; '.join(error.lines)}; {advice}") from error


def download_file(
    url: str, target: Path, *, md5: str | None = None, sha256: str | None = None, progress: Progress | None = None
) -> None:
    """Download `url` to `target`; partial content stays in `<target>.part` until it is complete and verified.

    A second process that wants the same file waits for the first. Nothing is done where `target` exists.

    Raises:
        ConfigError: the address is not http or https.
        DataError: the server cannot be reached, the connection broke, or the content is not what was published.
        StorageError: the disk is full or refuses the file.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"'{url}' cannot be downloaded: the address must start with http:// or https://")
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(open_own(part), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if target.exists():
                part.unlink(missing_ok=True)
                return
            if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                # who held the lock gave up
                return download_file(url, target, md5=md5, sha256=sha256, progress=progress)
            _fill(url, file, part, progress or stderr_progress(target.name))
            os.fsync(file.fileno())
            _verify(url, part, md5, sha256)
            os.replace(part, target)
    except OSError as error:
        raise StorageError(_describe_write_error(part, error)) from error


def stderr_progress(name: str, stream: TextIO | None = None) -> Progress:
    """Return a progress line on stderr: overwritten on a terminal, elsewhere a new line every 10 %."""
    out = sys.stderr if stream is None else stream
    step = 1 if out.isatty() else 10
    shown = -1

    def report(done: int, total: int | None) -> None:
        nonlocal shown
        percent = 100 * done // total if total else 0
        if total and percent // step > shown:
            shown = percent // step
            line = f"{name}: {percent} % of {total / 1e6:.1f} MB"
            ending = "\n" if step > 1 or percent == 100 else ""
            out.write(f"{line}{ending}" if step > 1 else f"\r{line}{ending}")
            out.flush()

    return report


def _fill(url: str, file: BinaryIO, part: Path, progress: Progress) -> None:
    have = file.seek(0, os.SEEK_END)
    try:
        response = _open(url, have)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
        if _length(error.headers.get("Content-Range"), r"bytes \*/(\d+)") == have:
            return  # whole already; only the verification was missing
        file.truncate(0)
        return _fill(url, file, part, progress)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(_broken(url, error, have)) from error
    with response:
        content_range = response.headers.get("Content-Range")
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        elif _length(content_range, r"bytes (\d+)-") != have:
            raise DataError(f"{url}: the server sent another part than asked for; delete {part.absolute()}")
        file.truncate(have)
        length = _length(response.headers.get("Content-Length"), r"(\d+)")
        total = None if length is None else have + length
        _check_space(part, (total or 0) - have)
        while block := _read_block(url, response, have):
            file.write(block)
            have += len(block)
            progress(have, total)
        file.flush()
    if total is not None and have != total:
        raise DataError(_broken(url, f"it closed after {have} of {total} bytes", have))


def _open(url: str, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "bigmodel-train", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    response: http.client.HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S
    )
    return response


def _read_block(url: str, response: http.client.HTTPResponse, have: int) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(_broken(url, error, have)) from error


def _verify(url: str, part: Path, md5: str | None, sha256: str | None) -> None:
    for algorithm, expected in (("md5", md5), ("sha256", sha256)):
        if expected is None:
            continue
        actual = file_hash(part, algorithm)
        if actual != expected.lower():
            part.unlink()
            raise DataError(
                f"{url}: what arrived has {algorithm} {actual}, not the published {expected}; it was deleted, "
                "run again to repeat the download, or set another mirror"
            )


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")


def _describe_write_error(part: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{part.absolute()}: the disk is full ({error.strerror}); make room and run again to continue the download"
        )
    return f"{part.absolute()}: cannot be written: {error.strerror or error}"


def _broken(url: str, error: object, have: int) -> str:
    reason = getattr(error, "reason", None) or error or type(error).__name__
    reason = getattr(reason, "strerror", None) or reason  # without the number of the error
    kept = f"; {have / 1e6:.1f} MB are kept, run again to go on from there" if have else "; run again to try once more"
    return f"{url}: the connection failed: {reason}{kept}"


def _length(header: str | None, pattern: str) -> int | None:
    found = re.match(pattern, header or "")
    return int(found[1]) if found else None
