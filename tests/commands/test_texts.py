"""`bigmodel-predict` on texts: a sentence as it is written, a file with one in each line, or standard input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import bigmodel
from conftest import Answer, call, is_quiet


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A classifier that knows a kind word from an unkind one."""
    here = tmp_path_factory.mktemp("opinions")
    rows = [f'"a {word}, long film {n}",{label}\n' for n in range(40) for word, label in (("good", "+"), ("dull", "-"))]
    (here / "films.csv").write_text("text,label\n" + "".join(rows))
    data = ("dataset=labelled_text", "dataset.train=films.csv", "dataset.test_fraction=0.2", "dataset.context=16")
    words = ("device=cpu", "model=text_cnn", "model.width=8", "model.filters=8", "optim=adamw", "optim.lr=0.05")
    answer = call(*data, *words, "epochs=6", "batch_size=8", cwd=here)
    assert answer.code == 0, answer.err
    return answer


def test_answers_that_no_memory_holds(opinions: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr("bigmodel.inference.Predictor.answers", full)
    answer = call(f"run={opinions.run}", "input=a good film", "batch_size=7", cwd=tmp_path, verb="predict")
    (line,) = is_quiet(answer, code=6)
    assert "at batch_size=7; lower it, or beam=" in line


def test_a_sentence_a_file_and_standard_input(
    opinions: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (f"run={opinions.run}", "device=cpu")
    table = call(*run, "input=It's a good, 'long' \"film\"", cwd=tmp_path, verb="predict")
    assert table.code == 0, table.err
    head, row = table.out.splitlines()
    assert head.split() == ["text", "class", "probability", "class", "probability"]
    assert row.startswith("It's a good, 'long' \"film\"  +  ")
    lines = "good film\n\n  dull, dull and unheard-of \n"
    (tmp_path / "films.txt").write_text(lines)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    answers = []
    for given in ("films.txt", "-"):
        answer = call(*run, f"input={given}", "format=json", "top=1", cwd=tmp_path, verb="predict")
        assert answer.code == 0, answer.err
        answers.append([json.loads(line) for line in answer.out.splitlines()])
    assert answers[0] == answers[1]
    assert [row["class"] for row in answers[0]] == ["+", "-"]
    assert answers[0][0]["probability"] > 0.6
    assert answers[0][1]["input"] == "  dull, dull and unheard-of "
    ((_, answer),) = bigmodel.load(str(opinions.run)).predict(["good film"])
    assert answer["top"][0]["probability"] == pytest.approx(answers[0][0]["probability"], abs=1e-5)
    nothing = call(*run, "input= ", cwd=tmp_path, verb="predict")
    assert (nothing.code, "holds no text" in nothing.err) == (3, True)
    long = call(*run, "input=" + "good " * 200, "format=json", cwd=tmp_path, verb="predict")
    assert json.loads(long.out)["class"] == "+"
