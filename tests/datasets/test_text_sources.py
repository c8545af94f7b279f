"""Where texts come from: files, folders, tars and tables; what only looks like text is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bigmodel.datasets.text.continuous import names, text
from bigmodel.datasets.text.labelled_text import labelled_text
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import ConfigError, DataError
from bigmodel.inference.processors.sentences import TextClassificationProcessor

HOW = {"text_column": "text", "label_column": "label", "tokenizer": "word", "min_count": 1, "context": 40}
POEMS = [f"第{n}首 秋風清，秋月明" for n in range(12)]


def _labelled(folder: Path, train: str = "a", **how: Any) -> Any:
    return labelled_text(str(folder), train, **(HOW | {"val_fraction": 0.0, "word_rule": 2} | how))


def _decoded(dataset: Any, split: str = "train") -> list[str]:
    decode = tokenizer_from_spec(dataset.processor_spec()["tokenizer"]).decode
    return [decode([n for n in row if n >= 0]).replace(" ", "") for row in dataset.splits[split][0].tolist()]


def _text(path: Path, **how: Any) -> Any:
    own = {"tokenizer": "char", "vocabulary": "", "cache_dir": str(path.parent / "tokens")}
    return text(str(path), **(own | {"context": 4, "val_fraction": 0.0} | how))


def _written(dataset: Any) -> str:
    return str(dataset.tokenizer.decode(dataset.tokens_N.tolist()))


def _tar(file: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _films(folder: Path) -> Path:
    """The layout of the large movie review data: train and test, and texts without a label beside the classes."""
    for split, label, count in (("train", "neg", 3), ("train", "pos", 3), ("test", "neg", 2), ("test", "pos", 2)):
        place = folder / split / label
        place.mkdir(parents=True)
        for n in range(count):
            (place / f"{n}_7.txt").write_text(f"a {label} film,\nnumber {n}", encoding="utf-8")
    (folder / "train" / "unsup").mkdir()
    (folder / "train" / "unsup" / "0_0.txt").write_text("no label", encoding="utf-8")
    return folder


def test_a_folder_of_text_files_a_class(tmp_path: Path) -> None:
    _films(tmp_path / "films")
    dataset = _labelled(tmp_path, "films")
    assert {split: len(targets) for split, (_, targets) in dataset.splits.items()} == {"train": 7, "test": 4}
    assert "warning: test has no texts of unsup" in dataset.notes
    dataset = _labelled(tmp_path, "films", classes=["neg", "pos"])
    assert dataset.processor_spec()["classes"] == ["neg", "pos"]
    assert dataset.splits["test"][1].tolist() == [0, 0, 1, 1]
    assert _decoded(dataset)[0] == "anegfilm,number0"
    assert "1 text of other labels left out: unsup (dataset.classes)" in dataset.notes
    assert dataset.processor_spec()["by_file"]
    with pytest.raises(
        ConfigError, match=r"dataset\.classes: no training text has the label 'neutral'; labels: neg, pos"
    ):
        _labelled(tmp_path, "films", classes=["neg", "neutral"])
    (tmp_path / "films" / "train" / "pos" / "0_7.txt").write_bytes("très".encode("cp1252"))
    with pytest.raises(DataError, match=r"0_7\.txt: not text in UTF-8 .*broken=skip"):
        _labelled(tmp_path, "films")
    skipped = _labelled(tmp_path, "films", broken="skip")
    assert len(skipped.splits["train"][1]) == 6
    assert "1 bad row skipped (dataset.broken=skip)" in "\n".join(skipped.notes)


def test_a_tar_of_labelled_texts(tmp_path: Path) -> None:
    _tar(tmp_path / "a.tar.gz", {"0.txt": b"good film", "0.cls": b"1", "1.txt": b"bad film", "1.cls": b"0\n"})
    dataset = _labelled(tmp_path, "a.tar.gz")
    assert dataset.splits["train"][1].tolist() == [1, 0]
    _tar(tmp_path / "b.tar", {"0.txt": b"good film", "1.cls": b"0"})
    with pytest.raises(DataError, match=r"b\.tar:0: needs KEY\.txt with its label in KEY\.cls; has txt"):
        _labelled(tmp_path, "b.tar")
    (tmp_path / "c.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"c\.tar: cannot be read as a tar"):
        _labelled(tmp_path, "c.tar")


def test_chinese_in_its_own_encoding_and_by_characters(tmp_path: Path) -> None:
    rows = "".join(f"{poem},{n % 2}\n" for n, poem in enumerate(POEMS))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}", encoding="gb18030")
    with pytest.raises(DataError, match=r"a\.csv: not text in UTF-8.*set dataset\.encoding=gb18030 if it says '.*秋風"):
        _labelled(tmp_path, "a.csv")
    for how in ({"tokenizer": "word"}, {"tokenizer": "char"}):
        dataset = _labelled(tmp_path, "a.csv", encoding="gb18030", **how)
        assert _decoded(dataset)[0] == POEMS[0].replace(" ", "")
        assert dataset.properties["vocab_size"] > 15
        assert dataset.processor_spec()["encoding"] == "gb18030"
    (tmp_path / "b.csv").write_text(f"text,label\n{rows}", encoding="utf-8-sig")
    assert _labelled(tmp_path, "b.csv").fingerprint == _labelled(tmp_path, "a.csv", encoding="gb18030").fingerprint


def test_texts_that_a_model_could_not_tell_apart_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"只有一次{chr(0x4E00 + n)},{n % 2}\n" for n in range(20))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    with pytest.raises(DataError, match=r"no word of .* occurs as often as min_count=2.*tokenizer=char"):
        _labelled(tmp_path, "a.csv", word_rule=1, min_count=2)
    assert _labelled(tmp_path, "a.csv", min_count=2).properties["vocab_size"] == 5
    (tmp_path / "b.csv").write_text("text,label\nan English text,1\n", encoding="utf-8")
    (note,) = (note for note in _labelled(tmp_path, "a.csv", test="b.csv").notes if "unknown" in note)
    assert note.startswith("warning: 100% of the words of the test texts are unknown; lower dataset.min_count")


def test_a_rare_class_stays_in_training(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{'rare' if n == 7 else n % 2}\n" for n in range(40))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    for fraction in (0.3, 0.6, 0.9):
        dataset = _labelled(tmp_path, "a.csv", test_fraction=fraction)
        assert set(dataset.splits["train"][1].tolist()) == {0, 1, 2}
        (few,) = (note for note in dataset.notes if note.startswith("warning: fewer than 5 training texts: "))
        assert few.endswith("rare 1")


def test_a_header_in_the_midst_is_no_row(tmp_path: Path) -> None:
    part = "text,label\ngood,1\nbad,0\n"
    (tmp_path / "a.csv").write_text(part + part, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv:4: repeats the header; dataset\.broken=skip leaves such rows out"):
        _labelled(tmp_path, "a.csv")
    assert _labelled(tmp_path, "a.csv", broken="skip").splits["train"][1].tolist() == [1, 0, 1, 0]
    for header in ("\ufefftext,label", "Text, LABEL "):
        (tmp_path / "a.csv").write_text(part + part.replace("text,label", header), encoding="utf-8")
        with pytest.raises(DataError, match=r"a\.csv:4: repeats the header"):
            _labelled(tmp_path, "a.csv")
    (tmp_path / "b.csv").write_text("text,label\ngood,label\ntext,good\nbad,good\ngood,label\n", encoding="utf-8")
    assert _labelled(tmp_path, "b.csv").splits["train"][1].tolist() == [1, 0, 0, 1]


def test_bad_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\ngood,1\n,0\nbad,0\nodd,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset\.broken=skip leaves such rows out"):
        _labelled(tmp_path, "a.csv")
    dataset = _labelled(tmp_path, "a.csv", broken="skip")
    assert dataset.splits["train"][1].tolist() == [1, 0]
    assert "a.csv: 2 bad rows skipped (dataset.broken=skip); the first: " in dataset.notes[0]


@pytest.mark.parametrize("separator", ["tab", "\\t", "\t", ";", "|"])
def test_a_separator_can_be_typed(tmp_path: Path, separator: str) -> None:
    written = {"tab": "\t", "\\t": "\t"}.get(separator, separator)
    (tmp_path / "a.txt").write_text(f'text{written}label\n"a, b"{written}1\nc{written}0\n', encoding="utf-8")
    assert _decoded(_labelled(tmp_path, "a.txt", separator=separator)) == ["a,b", "c"]


TABLES = {
    "a.csv": 'id,text\n1,"said ""no"", twice"\n2,two\n',
    "a.tsv": 'id\ttext\n1\tsaid "no", twice\n2\ttwo\n',
    "a.jsonl": '{"id": 1, "text": "said \\"no\\", twice"}\n{"id": 2, "text": "two"}\n',
    "a.json": '[{"id": 1, "text": "said \\"no\\", twice"}, {"id": 2, "text": "two"}]',
}


@pytest.mark.parametrize("name", [*TABLES, "a.parquet", "a.arrow", "a.jsonl.gz"])
def test_a_language_model_learns_a_column_and_no_syntax(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name in TABLES:
        file.write_text(TABLES[name], encoding="utf-8-sig" if name == "a.csv" else "utf-8")
    elif name == "a.jsonl.gz":
        import gzip

        file.write_bytes(gzip.compress(TABLES["a.jsonl"].encode()))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"id": [1, 2], "text": ['said "no", twice', "two"]})
        if name == "a.parquet":
            from pyarrow import parquet

            parquet.write_table(table, file)
        else:
            from pyarrow import feather

            feather.write_feather(table, str(file))
    with pytest.raises(DataError, match=r"is a table, .* set dataset\.text_column, one of: id, text"):
        _text(file)
    assert _written(_text(file, text_column="text")) == 'said "no", twice\ntwo\n'
    with pytest.raises(DataError, match="nosuch"):
        _text(file, text_column="nosuch")


def test_plain_text_in_every_guise(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "宝 one".encode())
    (tmp_path / "b.txt").write_text(" two", encoding="utf-8-sig")
    (tmp_path / "c.jsonl").write_text("{}", encoding="utf-8")
    (tmp_path / "d.md").write_text("#", encoding="utf-8")
    dataset = _text(tmp_path)
    assert _written(dataset) == "宝 one two"
    assert "files passed over: 1 .jsonl, 1 .md" in dataset.notes[0]
    (tmp_path / "e.dat").write_text("这家酒店很好，服务热情", encoding="gb18030")
    with pytest.raises(DataError, match=r"e\.dat: not text in UTF-8 .* set dataset\.encoding=gb18030"):
        _text(tmp_path / "e.dat")
    assert _written(_text(tmp_path / "e.dat", encoding="gb18030")) == "这家酒店很好，服务热情"
    (tmp_path / "f.txt").write_text("hello", encoding="utf-16")
    with pytest.raises(DataError, match=r"encoding=utf-16"):
        _text(tmp_path / "f.txt")
    assert _written(_text(tmp_path / "f.txt", encoding="utf-16")) == "hello"
    _tar(tmp_path / "g.tar", {"x/0.txt": "宝".encode(), "x/0.json": b"{}", "x/1.txt": b"b\n"})
    assert _written(_text(tmp_path / "g.tar")) == "宝\nb\n"
    (tmp_path / "h.txt").write_text(json.dumps({"text": "a"}) + "\n", encoding="utf-8")
    assert "begins like JSON, which is learned as it stands" in _text(tmp_path / "h.txt").notes[0]
    (tmp_path / "i.txt").write_text("[Enter HAMLET]\nTo be", encoding="utf-8")
    assert _text(tmp_path / "i.txt").notes == []
    with pytest.raises(DataError, match="is not a table, so it has no column 'text'"):
        _text(tmp_path / "a.txt", text_column="text")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.rst").write_text("a", encoding="utf-8")
    with pytest.raises(DataError, match=r"there are no texts \(\.txt\) in the folder .*; it holds 1 \.rst"):
        _text(tmp_path / "only")


def test_a_folder_is_walked_as_those_of_classes_are(tmp_path: Path) -> None:
    for name in ("集/b/2.txt", "集/1.txt", "集/.git/3.txt", "集/@eaDir/4.txt", "集/._1.txt", "外/5.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name[-5]}\n", encoding="utf-8")
    (tmp_path / "集" / "c").symlink_to(tmp_path / "外")
    (tmp_path / "集" / "d").symlink_to(tmp_path / "集" / "b")
    dataset = _text(tmp_path / "集")
    assert _written(dataset) == "1\n2\n5\n"
    assert "files passed over: 3 hidden, 1 linked folder that is walked anyway" in dataset.notes[0]
    (tmp_path / "集" / "e.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"e\.txt: "):
        _text(tmp_path / "集")


def test_names_may_hold_blanks(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("\ufeffNew York\n\nRome \n", encoding="utf-8")
    dataset = names(str(tmp_path / "n.txt"), "", context=4, val_fraction=0.0)
    assert sorted(_written(dataset).strip("\n").split("\n")) == ["New York", "Rome"]


def test_tables_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('ham\tcome "home"\nspam\twin, win\n', encoding="utf-8")
    dataset = _labelled(tmp_path, "a.tsv", columns=["label", "text"])
    assert dataset.processor_spec()["classes"] == ["ham", "spam"]
    assert _decoded(dataset) == ['come"home"', "win,win"]
    kind = {key: value for key, value in dataset.processor_spec().items() if key != "kind"}
    assert TextClassificationProcessor(**kind).list_inputs(str(tmp_path / "a.tsv")) == ['come "home"', "win, win"]


def test_the_line_of_a_wrong_byte_far_in(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_bytes("宝 plain\n".encode() * 150_000 + "très long\n".encode("cp1252") * 3)
    with pytest.raises(DataError, match=r"long\.txt: not text in UTF-8 \(line 150001 holds the byte 0xe8\)"):
        _text(file)
    (tmp_path / "sparse.txt").touch()
    os.truncate(tmp_path / "sparse.txt", 1 << 40)
    with pytest.raises(DataError, match=r"sparse\.txt.*a sparse file"):
        _text(tmp_path / "sparse.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="there is no text at"):
        _text(tmp_path / "pipe.txt")
