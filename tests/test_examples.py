"""`make examples`: every experiment there is, each cut to a few batches through the real commands."""

from __future__ import annotations

import importlib.util
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigmodel.config.location import conf_directory
from conftest import call

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The script, whose commands run in this process, where there are no data."""
    spec = importlib.util.spec_from_file_location("examples", ROOT / "scripts" / "examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def command(verb, *words):
        answer = call(*words, cwd=tmp_path, verb=verb)
        if answer.code:
            raise module.Failed(answer.code, answer.err)
        return answer.out

    monkeypatch.setattr(module, "command", command)
    monkeypatch.setattr(module, "ThreadPoolExecutor", lambda _: nullcontext(SimpleNamespace(map=map)))
    monkeypatch.delenv("BIGMODEL_DATA_DIR", raising=False)
    return module


def test_none_is_left_out(examples):
    assert {path.stem for path in (conf_directory() / "experiment").glob("*.yaml")} == set(examples.EXPERIMENTS)


def test_what_runs_what_lacks_its_data_and_what_fails(examples, capsys, monkeypatch):
    assert examples.main(["smoke", "cifar10_quick", "resnet20_imported"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["smoke", "ok"],
        ["cifar10_quick", "skipped"],
        ["resnet20_imported", "skipped"],
    ]
    assert re.search(r"test accuracy 0\.\d+ +\d$", lines[0])
    assert "resnet20-12fca82f.th" in lines[2]

    def lacks(*_):
        raise examples.Failed(2, "dataset: tokenizer=bpe needs tokenizers; pip install 'bigmodel-train[text]'")

    monkeypatch.setattr(examples, "command", lacks)
    assert examples.main(["smoke"]) == 0
    assert re.search(r"smoke +skipped .+ pip install 'bigmodel-train\[text\]'", capsys.readouterr().out)

    def diverges(*_):
        raise examples.Failed(4, "diverged at step 1")

    monkeypatch.setattr(examples, "command", diverges)
    assert examples.main(["smoke"]) == 1
    assert re.search(r"smoke +FAILED .+ diverged at step 1", capsys.readouterr().out)
