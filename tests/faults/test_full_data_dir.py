"""A disk that fills while data arrive or are unpacked: one line, no partial data, and the next try goes on."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from forks import finished, launch
from mounts import mounted

NAME, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
PAGE = 4096
IMAGES = 40  # a file; as few as this are never held against the published hash
RUN = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[8]", "dataset=cifar10", "listeners=[]")
RUN = (*RUN, "batch_size=8", "limit_batches=2", "epochs=1")


@pytest.fixture(scope="module")
def archive() -> bytes:
    """The layout of CIFAR-10 with a few images, of a kind that shrinks to a third."""
    dice, packed = np.random.default_rng(0), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            rows = dice.integers(0, 5, (IMAGES, 3073), np.uint8)
            rows[:, 0] = np.arange(IMAGES) % 10
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = rows.nbytes
            tar.addfile(entry, io.BytesIO(rows.tobytes()))
    return packed.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        content = self.server.content
        self.server.asked.append(first)
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if self.server.says_how_much:
            self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.content, running.asked, running.says_how_much = archive, [], True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _publish(md5: str, enter: Callable[[], None]) -> None:
    """In the child: the small archive is the one that the authors publish."""
    from dataclasses import replace

    from bigmodel.datasets.images import cifar

    first, *others = cifar._CIFAR10
    cifar._CIFAR10 = (replace(first, archive=replace(first.archive, md5=md5)), *others)
    enter()


def _names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("article", "stage"), [("a", "download"), ("an", "extraction")])
def test_the_disk_fills(
    campaign: Callable, server: ThreadingHTTPServer, archive: bytes, tmp_path: Path, article: str, stage: str
) -> None:
    md5 = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    whole, plain = len(archive) // PAGE + 1, 6 * (IMAGES * 3073 // PAGE + 1)
    for trial in campaign(f"the disk fills during {article} {stage}", key=f"FULL_{stage.upper()}", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            room = (1, whole - 1) if stage == "download" else (whole + 1, whole + plain - 1)
            server.says_how_much, server.asked = trial.number % 2 == 0, []
            mirror = f"http://127.0.0.1:{server.server_port}/sets"
            with mounted(cwd / "disk", f"size={trial.random.randint(*room) * PAGE}") as mount:
                words = (*RUN, f"data_dir={mount.path}", f"dataset.mirror={mirror}")
                before = partial(_publish, md5, mount.enter)
                local = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
                first = launch(*words, cwd=cwd, output=cwd / "said", before=before, environment=local)
                assert finished(first) == 5, (cwd / "said").read_text()
                *progress, line = (cwd / "said").read_text().splitlines()
                assert all(told.startswith(f"{NAME}: ") for told in progress)
                assert line.startswith(f"error: {mount.path}/"), line
                if stage == "download":
                    assert "the disk is full" in line
                    assert "make room and run again" in line
                    assert (" MB needed, " in line and " MB free" in line) or not server.says_how_much
                    assert _names(mount.inside) == [f"{NAME}.part"]
                    part = (mount.inside / f"{NAME}.part").read_bytes()
                    assert archive.startswith(part)
                else:
                    assert re.search(r"No space left on device \([\d.]+ MB needed, [\d.]+ MB free\)$", line), line
                    assert _names(mount.inside) == [NAME]
                assert not (cwd / "outputs").exists()
                mount.remount("size=9m")
                again = launch(*words, cwd=cwd, output=cwd / "again", before=before, environment=local)
                assert finished(again) == 0, (cwd / "again").read_text()
                assert server.asked == ([0, len(part)] if stage == "download" else [0])
                assert _names(mount.inside) == [FOLDER, NAME]
                assert len(list(cwd.glob("outputs/*/*/summary.json"))) == 1
