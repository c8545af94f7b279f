"""Downloads from a server on this machine that breaks off, resumes, lies and refuses."""

import errno
import hashlib
import io
import re
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bigmodel.datasets.files import download
from bigmodel.datasets.files.download import download_file, ensure_file, mirror_url, stderr_progress
from bigmodel.errors import ConfigError, DataError, StorageError

CONTENT = bytes(range(256)) * 12_000  # 3 MB
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path == "/gone":
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.cuts, running.ranges = [], [], True
        running.url = f"http://127.0.0.1:{running.server_port}/set.bin"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_verified(server, tmp_path, capsys):
    target = tmp_path / "new" / "set.bin"
    download_file(server.url, target, md5=MD5, sha256=SHA256.upper())
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["set.bin"]
    assert "set.bin: 100 % of 3.1 MB\n" in capsys.readouterr().err
    download_file(server.url, target, md5=MD5)
    assert len(server.asked) == 1


def test_a_broken_connection_keeps_what_arrived_and_goes_on(server, tmp_path):
    target = tmp_path / "set.bin"
    server.cuts = [len(CONTENT) // 2]
    with pytest.raises(DataError, match=r"connection failed.*1\.5 MB are kept, run again to go on") as caught:
        download_file(server.url, target, md5=MD5)
    assert len(caught.value.lines) == 1
    assert names(tmp_path) == ["set.bin.part"]
    download_file(server.url, target, md5=MD5)
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["set.bin"]
    assert server.asked == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "set.bin.part").write_bytes(b"old" * 1000)
    download_file(server.url, tmp_path / "set.bin", md5=MD5)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, part):
    (tmp_path / "set.bin.part").write_bytes(part)
    download_file(server.url, tmp_path / "set.bin", md5=MD5)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"md5": "0" * 32}, {"sha256": "0" * 64}])
def test_a_wrong_hash_leaves_nothing(server, tmp_path, wrong):
    with pytest.raises(DataError, match="not the published 0000"):
        download_file(server.url, tmp_path / "set.bin", **wrong)
    assert names(tmp_path) == []


def test_a_server_that_refuses_or_is_not_there(server, tmp_path):
    with pytest.raises(DataError, match="the server answers 404"):
        download_file(server.url.replace("set.bin", "gone"), tmp_path / "set.bin")
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"connection failed: Connection refused; run again"):
        download_file(server.url, tmp_path / "set.bin")


def test_only_http_is_asked(tmp_path):
    with pytest.raises(ConfigError, match="must start with http"):
        download_file(f"file://{tmp_path}/set.bin", tmp_path / "other.bin")


def test_a_full_disk_is_a_storage_error(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(1_000_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"the disk is full \(3.1 MB needed, 1.0 MB free\)"):
        download_file(server.url, tmp_path / "set.bin", md5=MD5)
    assert not (tmp_path / "set.bin").exists()


def test_a_disk_that_fills_up_later_is_a_storage_error(server, tmp_path):
    def full(done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="the disk is full"):
        download_file(server.url, tmp_path / "set.bin", progress=full)
    assert names(tmp_path) == ["set.bin.part"]


def test_two_at_once_download_once(server, tmp_path):
    target = tmp_path / "set.bin"
    threads = [threading.Thread(target=download_file, args=(server.url, target), kwargs={"md5": MD5}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["set.bin"]
    assert len(server.asked) == 1


def test_a_mirror_replaces_all_but_the_file_name(server, tmp_path):
    assert mirror_url("https://a.org/b/c.gz", None) == "https://a.org/b/c.gz"
    assert mirror_url("https://a.org/b/c.gz", "http://m.org/x/") == "http://m.org/x/c.gz"
    mirror = server.url.rpartition("/")[0]
    ensure_file("https://a.invalid/b/set.bin", tmp_path / "set.bin", MD5, True, mirror, "set.bin")
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_what_cannot_be_downloaded_says_how_else_to_get_it(server, tmp_path):
    with pytest.raises(DataError) as caught:
        ensure_file("https://a.invalid/gone", tmp_path / "x", MD5, True, server.url.rpartition("/")[0], "x in /y")
    (line,) = caught.value.lines
    assert "answers 404" in line
    assert "found no x in /y" in line


@pytest.mark.parametrize(("tty", "count", "ending"), [(False, 11, "\n"), (True, 101, "")])
def test_progress_is_a_line_each_ten_percent_or_overwritten(tty, count, ending):
    stream = io.StringIO()
    stream.isatty = lambda: tty
    report = stderr_progress("set", stream)
    for done in range(0, 3001):
        report(done, 3000)
    report(5, None)
    assert stream.getvalue().count("set: ") == count
    assert stream.getvalue().count("\r") == (count if tty else 0)
    assert stream.getvalue().count("\n") == (1 if tty else 11)
