"""Archives from a stranger and downloads that break off: nothing outside the target, nothing half-made, one line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bigmodel.datasets.files import archive as unpacking
from bigmodel.datasets.images import cifar
from conftest import call, is_quiet
from packing import BAD, FOLDER, GOOD, NAME, incomplete, packed

WORDS = ("dataset=cifar10", "device=cpu", "device.threads=1", "model=mlp", "model.hidden=[4]", "dry_run=true")


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bombs of test size: the bounds are arguments, and lower here."""
    extract = unpacking.extract
    monkeypatch.setattr(cifar, "extract", lambda a, f: extract(a, f, max_bytes=4_000_000, max_members=100))


def _tree(root: Path) -> dict[str, str]:
    """Every name below, with what is there; links are not followed."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path.relative_to(root))] = "folder"
    return found


def _place(tmp_path: Path, number: int) -> tuple[Path, Path]:
    """A folder for data, deep inside a tree of canaries."""
    root = tmp_path / str(number)
    data = root / "a" / "b" / "data"
    data.mkdir(parents=True)
    for place in (root, root / "a", root / "a" / "b"):
        (place / "canary").write_text("alive")
    return root, data


def _refused(root: Path, *words: str) -> None:
    answer = call(*WORDS, *words, cwd=root)
    progress = re.compile(rf"{re.escape(NAME)}: \d+ % of .*\n")
    lines = is_quiet(replace(answer, err=progress.sub("", answer.err)), code=3)
    assert len(lines) == 1, lines
    assert lines[0].isprintable()
    assert len(lines[0]) < 1000


def _accepted(root: Path, *words: str) -> None:
    answer = call(*WORDS, *words, cwd=root)
    assert answer.code == 0, answer.err
    assert "90 train, 10 val, 20 test" in answer.out


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_bad_archives(campaign: Callable[..., Any], bounds: None, tmp_path: Path) -> None:
    trials = campaign(
        "an archive that is cut, altered, a bomb, or writes outside: names, links, devices",
        key="ARCHIVES",
        quick=5,
        full=60,
    )
    for trial in trials:
        with trial:
            root, data = _place(tmp_path, trial.number)
            BAD[trial.number % len(BAD)](data / NAME, trial.random)
            before = _tree(root)
            words = (f"data_dir={data}", "dataset.download=false")
            _refused(root, *words)
            after = _tree(root)
            if BAD[trial.number % len(BAD)] is incomplete:  # sound in itself: unpacked whole, and said to lack a file
                after = {name: kind for name, kind in after.items() if not name.startswith(f"a/b/data/{FOLDER}")}
                shutil.rmtree(data / FOLDER)
            assert after == before
            assert not Path("/etc/bigmodel-evil").exists()
            packed(data / NAME)
            _accepted(root, *words)
            assert {name: (data / name).read_bytes() for name, _ in GOOD} == dict(GOOD)
            shutil.rmtree(root)


class _Handler(BaseHTTPRequestHandler):
    """Sends the archive, or a part of it, or something else; understands ranges."""

    server: Any

    def do_GET(self) -> None:
        body: bytes = self.server.content
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[start : max(cut, start)])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Serves a good archive, whose hash is then the published one."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    packed(tmp_path / NAME)
    content = (tmp_path / NAME).read_bytes()
    layout = cifar._CIFAR10[0]
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    published = replace(layout, archive=replace(layout.archive, md5=md5, size=len(content)))
    monkeypatch.setattr(cifar, "_CIFAR10", (published, *cifar._CIFAR10[1:]))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.content, running.cuts = content, []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.slow
def test_broken_downloads(campaign: Callable[..., Any], server: Any, tmp_path: Path) -> None:
    trials = campaign(
        "a download cut at a random byte, once to three times, or with a wrong hash", key="DOWNLOADS", quick=2, full=60
    )
    good = server.content
    for trial in trials:
        with trial:
            root, data = _place(tmp_path, trial.number)
            canaries = _tree(root)
            words = (f"data_dir={data}", f"dataset.mirror=http://127.0.0.1:{server.server_port}")
            if trial.number % 4 == 3:  # another file of the same length, as from a stale or hostile mirror
                altered = bytearray(good)
                altered[trial.random.randrange(len(good))] ^= 1 << trial.random.randrange(8)
                server.content = bytes(altered)
                _refused(root, *words)
                assert _tree(root) == canaries
                server.content = good
            else:
                server.cuts = cuts = sorted(trial.random.sample(range(len(good)), trial.random.randrange(1, 4)))
                for cut in tuple(cuts):
                    _refused(root, *words)
                    left = _tree(root)
                    part = left.pop(f"a/b/data/{NAME}.part")
                    assert part == hashlib.sha256(good[:cut]).hexdigest()
                    assert left == canaries
            _accepted(root, *words)
            assert {name: (data / name).read_bytes() for name, _ in GOOD} == dict(GOOD)
            assert not list(data.glob("*.part"))
            shutil.rmtree(root)


def test_the_bounds_in_use_are_those_of_the_largest_set() -> None:
    """The trials above lower the bounds; these are the ones that hold otherwise."""
    defaults = unpacking.extract.__kwdefaults__
    assert json.dumps(defaults) == json.dumps({"max_bytes": 2 << 30, "max_members": 10_000})
