"""`bigmodel-predict` on texts: a sentence as it is written, a file with one in each line, or standard input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import bigmodel
from bigmodel.errors import ConfigError, DataError
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

    monkeypatch.setattr("bigmodel.inference.predictor.Predictor.predict_batch", full)
    answer = call(f"run={opinions.run}", "input=a good film", "batch_size=7", cwd=tmp_path, verb="predict")
    (line,) = is_quiet(answer, code=6)
    assert line.endswith("at batch_size=7; lower it")


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


def test_a_table_is_read_by_the_column_that_training_read(opinions: Answer, tmp_path: Path) -> None:
    run = (f"run={opinions.run}", "device=cpu", "format=json", "top=1")
    (tmp_path / "new.csv").write_text('\ufeffid,label,text\n1,-,"a good, long\nfilm"\n2,+,dull\n', encoding="utf-8")
    answer = call(*run, "input=new.csv", cwd=tmp_path, verb="predict")
    assert answer.code == 0, answer.err
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [(row["input"], row["class"]) for row in rows] == [("a good, long\nfilm", "+"), ("dull", "-")]
    assert answer.err == "note: new.csv: unused columns: id, label\n"
    (tmp_path / "new.csv").write_text("label,review\n+,good\n")
    (line,) = is_quiet(call(*run, "input=new.csv", cwd=tmp_path, verb="predict"), code=3)
    assert "needs one column 'text'; the columns are: label, review" in line
    (line,) = is_quiet(call(*run, "input=gone.csv", cwd=tmp_path, verb="predict"), code=3)
    assert "there is no file 'gone.csv'" in line
    (tmp_path / "films").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "films" / name).write_text(f"a good film {name[0]}\n")
    for given in ("films", "films/*.txt"):
        answer = call(*run, f"input={given}", cwd=tmp_path, verb="predict")
        assert [json.loads(line)["input"] for line in answer.out.splitlines()] == ["a good film a", "a good film b"]


def test_texts_in_another_encoding(opinions: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = (f"run={opinions.run}", "device=cpu", "format=json", "top=1")
    (tmp_path / "bom.txt").write_text("good 宝", encoding="utf-8-sig")
    (tmp_path / "gb.txt").write_text("good 这家酒店很好", encoding="gb18030")
    answer = call(*run, "input=bom.txt", cwd=tmp_path, verb="predict")
    assert '"input": "good 宝"' in answer.out
    (line,) = is_quiet(call(*run, "input=gb.txt", cwd=tmp_path, verb="predict"), code=3)
    assert "gb.txt: not text in UTF-8" in line
    assert "set encoding=gb18030 if it says" in line
    for given in ("input=gb.txt", "input=-"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("good 这家酒店很好".encode("gb18030"))))
        answer = call(*run, given, "encoding=gb18030", cwd=tmp_path, verb="predict")
        assert '"input": "good 这家酒店很好"' in answer.out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffgood".encode())))
    assert json.loads(call(*run, "input=-", cwd=tmp_path, verb="predict").out)["input"] == "good"
    table = call(f"run={opinions.run}", "device=cpu", "input=good 宝\x1b[2J宝\u3000", cwd=tmp_path, verb="predict")
    assert table.out.splitlines()[1].startswith("good 宝\\x1b[2J宝\u3000  +  ")


def test_whatever_a_table_is_written_in(opinions: Answer, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"label": ["-"], "text": ["a good film"]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"text": "a good film", "label": "-"}\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text("label\ttext\n-\ta good film\n", encoding="utf-8")
    (tmp_path / "a.label").write_text("-:fine a good film\n", encoding="utf-8")
    for name in ("a.parquet", "a.jsonl", "a.tsv", "a.label"):
        answer = call(f"run={opinions.run}", "device=cpu", f"input={name}", "format=json", cwd=tmp_path, verb="predict")
        assert answer.code == 0, answer.err
        (row,) = map(json.loads, answer.out.splitlines())
        assert (row["input"], row["class"]) == ("a good film", "+")
        assert answer.err.startswith(f"note: {name}: ")
        assert "label" in answer.err


def test_a_model_of_plain_text_takes_no_table(tmp_path: Path) -> None:
    from bigmodel.inference.processors.continuation import TextGenerationProcessor
    from bigmodel.inference.processors.sentences import TextClassificationProcessor

    (tmp_path / "a.csv").write_text("text\ngood\n", encoding="utf-8")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    tokenizer = {"name": "byte"}
    given = {name: str(tmp_path / name) for name in ("a.csv", "a.txt")}
    model, prompts = TextClassificationProcessor(["+", "-"], tokenizer, 8), TextGenerationProcessor(tokenizer, 8)
    with pytest.raises(
        DataError, match="is a table, and this model was trained on plain text, so the text column is unknown"
    ):
        model.list_inputs(given["a.csv"])
    with pytest.raises(DataError, match="is a table, not one text"):
        prompts.list_inputs(given["a.csv"])
    assert model.list_inputs(given["a.txt"]) == ["one", "two"]
    assert TextClassificationProcessor(["+"], tokenizer, 8, by_file=True).list_inputs(given["a.txt"]) == ["one\ntwo"]
    assert prompts.list_inputs(given["a.txt"]) == ["one\ntwo\n"]
    assert prompts.list_inputs("What now?\n") == ["What now?\n"]
    with pytest.raises(DataError, match=r"there is no file 'b\.txt'"):
        prompts.list_inputs("b.txt")


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\ngood film,+\n,-\nbad film,-\nfine,+\n", encoding="utf-8")
    words = ("dataset=labelled_text", "dataset.train=a.csv", "dataset.broken=skip", "model=text_cnn", "device=cpu")
    small = ("model.width=8", "model.filters=8", "batch_size=2", "epochs=1", "dataset.val_fraction=0")
    line = "a.csv: 1 bad row left out (dataset.broken=skip), the first: "
    plan = call(*words, *small, "dry_run=true", cwd=tmp_path)
    assert plan.code == 0, plan.err
    assert line in plan.out
    answer = call(*words, *small, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert line in answer.out
    assert line in (answer.run / "train.log").read_text(encoding="utf-8")


def test_a_byte_order_mark_is_no_part_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from bigmodel.inference.processors.files import list_files

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa.png\r\nb.png\n")))
    assert list(list_files("-", frozenset({".png"}), "image")) == ["a.png", "b.png"]


@pytest.mark.parametrize(("key", "value"), [("separator", "much"), ("encoding", "base64")])
def test_a_strangers_checkpoint_says_how_tables_are_written(key: str, value: str) -> None:
    from bigmodel.inference.processors.sentences import TextClassificationProcessor

    with pytest.raises((ValueError, ConfigError), match=key):
        TextClassificationProcessor(["+"], {"name": "byte"}, 8, **{key: value})
