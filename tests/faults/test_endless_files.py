"""Pipes, devices and files without end or with a hole for a middle: refused in a line, at once, in little memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from campaign import chosen, count
from conftest import TINY, Answer, call
from forks import finished, launch
from hostile import STEP, reseal

pytestmark = pytest.mark.slow  # make test-all

SECONDS = 25
ROOM = 4 << 30
KINDS = ("pipe", "endless", "hole", "socket that is a folder")
FILES = ("config.yaml", "summary.json", "environment.json", "metrics.jsonl", ".lock")
CHECKPOINT = ("MANIFEST.json", "state.json", "model.safetensors", "optimizer.safetensors")
OF_A_RUN = (*FILES, "checkpoints/best.json", *(f"checkpoints/{STEP}/{name}" for name in CHECKPOINT))
READERS = {
    "evaluate": ("run={run}", "device=cpu"),
    "train": ("resume={run}", "epochs=3"),
    "runs": ("output_dir={above}",),
    "compare": ("{run}", "{other}"),
}
CASES = [(verb, name, kind) for verb in READERS for name in OF_A_RUN for kind in KINDS]


def _limited(room: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))


def _put(kind: str, place: Path) -> None:
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "endless":
        place.symlink_to("/dev/zero")
    elif kind == "hole":
        with place.open("wb") as file:
            file.write(b'{"a": 1}\n')
            file.truncate(1 << 40)
    else:
        place.mkdir()


def _ends(words: tuple[str, ...], verb: str, place: Path) -> tuple[int, str]:
    said = place / "said"
    said.unlink(missing_ok=True)
    process = launch(*words, cwd=place, output=said, verb=verb, before=partial(_limited, ROOM))
    code, text = finished(process, SECONDS), said.read_text(encoding="utf-8", errors="backslashreplace")
    assert "Traceback" not in text, text
    assert "bug" not in text, text
    assert all(len(line) < 1000 for line in text.splitlines()), text[:2000]
    return code, text


@pytest.mark.timeout(3600)
def test_files_of_a_run(campaign: Callable[..., Any], tiny_run: Answer, tmp_path: Path) -> None:
    key, quick, full = "ENDLESS", 2, len(CASES)
    for trial in campaign("a pipe, /dev/zero, a hole or a folder as a file of a run", key=key, quick=quick, full=full):
        with trial:
            verb, name, kind = chosen(CASES, trial, count(key, quick, full))
            place = tmp_path / str(trial.number)
            run, other = place / "outputs" / "day" / "run", place / "outputs" / "day" / "other"
            for copy in (run, other):
                shutil.copytree(tiny_run.run, copy)
            _put(kind, run / name)
            names = {"run": run, "other": other, "above": place / "outputs"}
            words = tuple(word.format(**names) for word in READERS[verb])
            code, said = _ends(words, verb, place)
            assert code in (0, 2, 3, 5), (verb, name, kind, said)
            if verb in ("runs", "compare"):
                assert code == 0 or (verb == "compare" and len(said.splitlines()) <= 3), (verb, name, kind, said)
            shutil.rmtree(place)


def _many_tensors(run: Path) -> None:
    entries = {f"tensor{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(200_000)}
    header = json.dumps(entries).encode()
    file = run / "checkpoints" / STEP / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * len(entries)))
    reseal(run)


@pytest.mark.slow
def test_a_file_of_200_000_tensors_is_passed_over(tiny_run: Answer, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.run, tmp_path / "run")
    _many_tensors(tmp_path / "run")
    code, said = _ends(("run=run", "device=cpu"), "evaluate", tmp_path)
    assert code == 0, said
    assert "names too many tensors" in said
    weights = tmp_path / "run" / "checkpoints" / STEP / "model.safetensors"
    code, said = _ends((*TINY, f"init.from={weights}"), "train", tmp_path)
    assert code == 2
    assert "names too many tensors" in said


TEXT = ("model=gpt", "task=language_modelling", "~loss", "monitor=loss", "epochs=1")
DATA = {
    "a picture": ("a/x.png", ("dataset=image_folder", "dataset.root=data", "dataset.input_shape=[3,8,8]", *TINY[1:])),
    "a sound": ("a/x.wav", ("dataset=audio_folder", "dataset.root=data", "model=audio_cnn", "epochs=1")),
    "a text": ("x.txt", ("dataset=text", "dataset.path=data/x.txt", *TEXT)),
}


@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
@pytest.mark.parametrize("what", DATA)
def test_files_of_a_dataset(tmp_path: Path, what: str, kind: str) -> None:
    name, words = DATA[what]
    for folder in ("a", "b"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / folder / f"{number}.pgm").write_bytes(b"P5 8 8 255 " + bytes(64))
    _put(kind, tmp_path / "data" / name)
    code, said = _ends((*words, "device=cpu"), "train", tmp_path)
    assert code in (2, 3) or (code == 0 and what == "a picture" and kind != "hole"), said
    if code:
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 + (what == "a picture" and len(lines) > 1), said  # of pictures each, and how many


def test_nested_targets_take_no_longer_than_the_file_is_long(tiny_run: Answer, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.run, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / STEP / "state.json"
    state = json.loads(file.read_text())
    nodes = [{"_target_": "torch.nn.Linear", "in_features": n} for n in range(5_000)]
    state["config"]["model"]["hidden"] = nodes
    file.write_text(json.dumps(state))
    reseal(tmp_path / "run")
    code, said = _ends((f"run=run/checkpoints/{STEP}", "device=cpu"), "evaluate", tmp_path)
    assert code == 2, said[:500]
    deep: dict[str, Any] = {"_target_": "torch.nn.Linear"}
    for _ in range(300):
        deep = {"_target_": "torch.nn.Linear", "bias": deep}
    state["config"]["model"]["hidden"] = deep
    file.write_text(json.dumps(state))
    reseal(tmp_path / "run")
    code, said = _ends((f"run=run/checkpoints/{STEP}", "device=cpu"), "evaluate", tmp_path)
    assert code == 2
    (line,) = said.splitlines()
    assert "nested more than" in line


def test_a_long_sound_at_a_high_rate(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        size = 40_000_000
        head = struct.pack("<HHIIHH", 1, 1, 1_000_000, 1_000_000, 1, 8)
        content = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", size)
        with (tmp_path / "data" / name / "x.wav").open("wb") as file:
            file.write(b"RIFF" + struct.pack("<I", len(content) + size) + content + os.urandom(1 << 20))
            file.truncate(12 + len(content) - 4 + size)
    assert call("--version", cwd=tmp_path).code == 0
    code, said = _ends((*DATA["a sound"][1], "device=cpu"), "train", tmp_path)
    assert code == 3
    assert said.count("40000000 samples in 1 channels are too many") == 2, said  # both are told at once
