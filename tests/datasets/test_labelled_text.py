"""Texts with labels: files as their authors write them become tokens and classes, and what is wrong has a place."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.datasets.text.labelled_text import labelled_text
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.datasets.text.word_tokenizer import WordTokenizer, fit_word_tokenizer
from bigmodel.errors import ConfigError, DataError
from bigmodel.interfaces import LoaderOptions

HOW = {"text_column": ["text"], "label_column": "label", "tokenizer": "word", "min_count": 1, "context": 6}


def _made(folder: Path, train: str, **how: Any) -> Any:
    return labelled_text(str(folder), train, **(HOW | {"val_fraction": 0.0} | how))


def test_words_are_learned_from_what_is_trained_on_alone(tmp_path: Path) -> None:
    assert fit_word_tokenizer(["It's it", "it 's, IT"], 2).spec == {"name": "word", "words": ["it", "'", "s"]}
    rows = "".join(f"own{n} shared,{n % 2}\n" for n in range(20))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}")
    dataset = _made(tmp_path, "a.csv", val_fraction=0.25, min_count=1)
    assert dataset.properties == {
        "num_classes": 2,
        "vocab_size": 17,
    }  # of 21 five are held out; one stands for any other
    tokenizer = tokenizer_from_spec(json.loads(json.dumps(dataset.processor_spec()))["tokenizer"])
    data = dataset.loader(LoaderOptions(torch.device("cpu"), 5, seed=0))
    held = torch.cat([batch.inputs for batch in data.eval_batches("val")])
    assert held.shape == (5, 6)  # a context of six is below the eight to which lengths are rounded
    assert held.tolist() == [[0, 1, -1, -1, -1, -1]] * 5
    assert tokenizer.encode("Shared SHARED never").tolist() == [1, 1, 0]
    cut = _made(tmp_path, "a.csv", val="a.csv", test_fraction=0.25)
    assert {split: len(targets) for split, (_, targets) in cut.splits.items()} == {"train": 15, "val": 20, "test": 5}
    with pytest.raises(ValueError, match="distinct"):
        WordTokenizer(["a", "a"])


def test_each_format_is_read_as_its_authors_write_it(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b'label\ttext\r\n1\tsaid "no\r\n0\ta  long one\r\n')
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress((tmp_path / "a.tsv").read_bytes()))
    (tmp_path / "a.csv").write_bytes(b'text,label\r\n"yes, ""no""",0\r\nyes,1\r\n')
    (tmp_path / "a.label").write_bytes(b"NUM:date When ?\nHUM:ind Who\xf0 ?\n")
    names = {"class_names": {"0": "against", "1": "for"}}
    expected = {
        "a.tsv": ["against", "for"],
        "a.tsv.gz": ["against", "for"],
        "a.csv": ["against", "for"],
        "a.label": ["HUM", "NUM"],
    }
    for name, classes in expected.items():
        dataset = _made(tmp_path, name, **names)
        assert dataset.processor_spec()["classes"] == classes
        decode = tokenizer_from_spec(dataset.processor_spec()["tokenizer"]).decode
        texts = [decode([token for token in row if token >= 0]) for row in dataset.splits["train"][0].tolist()]
        assert (
            texts
            == {
                "a.tsv": ['said " no', "a long one"],
                "a.tsv.gz": ['said " no', "a long one"],
                "a.csv": ['yes , " no "', "yes"],
                "a.label": ["when ?", "whoð ?"],
            }[name]
        )


def test_a_batch_is_as_long_as_its_longest_asks_for(tmp_path: Path) -> None:
    rows = [f"{'b ' * count},{count % 2}\n" for count in (1, 2, 9, 30)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(rows))
    data = _made(tmp_path, "a.csv", context=20).loader(LoaderOptions(torch.device("cpu"), 2, 0))
    assert [batch.inputs.shape for batch in data.eval_batches("train")] == [(2, 8), (2, 20)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\ngood,1\n,0\n", r"a\.csv:3: column 'text': empty"),
        ("text,label\ngood\n", r"a\.csv:2: column 'label': not there: the row ends after 1"),
        ("text,label\ngood,1,2\n", r"a\.csv:2: has 3 fields, for 2 columns"),
        ("text,kind\ngood,1\n", r"a\.csv:1: needs one column 'label'; the columns are: text, kind"),
        ('text,label\n"good,1\n', r"a\.csv:2: not CSV"),
        ("text,label\n", r"a\.csv: holds no texts"),
        ("text,label\n" + ",1\n" * 9, r"a\.csv: 4 more bad rows"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        _made(tmp_path, "a.csv")


def test_what_is_missing_or_strange_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\ngood,1\nbad,0\n")
    (tmp_path / "b.csv").write_text("text,label\ngood,1\nso,2\n")
    (tmp_path / "c.label").write_text("NUM:date\n")
    with pytest.raises(DataError, match=r"b\.csv:3: column 'label': no training text has the label '2'"):
        _made(tmp_path, "a.csv", test="b.csv")
    with pytest.raises(DataError, match=r"c\.label:1: column 'text': empty"):
        _made(tmp_path, "c.label")
    with pytest.raises(DataError, match=r"dataset\.val: found no 'd\.csv' in .*; get it from there"):
        _made(tmp_path, "a.csv", val="d.csv", source="there")
    with pytest.raises(ConfigError, match="num_classes: got 3, but the data has 2; leave it null"):
        _made(tmp_path, "a.csv", num_classes=3)


@pytest.mark.parametrize(("name", "sizes"), [("trec", {"train": 5452, "test": 500}), ("sms_spam", {"train": 5574})])
def test_the_published_files_are_as_they_should_be(name: str, sizes: dict[str, int]) -> None:
    folder = os.environ.get("BIGMODEL_DATA_DIR")
    files = {"trec": "trec/train_5500.label", "sms_spam": "sms_spam.tsv"}
    if folder is None or not (Path(folder) / "shared/text" / files[name]).is_file():
        pytest.skip(f"BIGMODEL_DATA_DIR holds no {name}")
    columns = (
        {"text_column": ["SMS"], "label_column": "Label"} if name == "sms_spam" else {"test": "trec/TREC_10.label"}
    )
    dataset = _made(Path(folder), files[name], **columns)
    assert {split: len(targets) for split, (_, targets) in dataset.splits.items()} == sizes


def test_labels_that_are_lists_or_stand_for_none_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": (["a", "b"], "a", "N/A")[n % 3]} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    notes = _made(tmp_path, "a.jsonl").notes
    assert 'warning: each of these lists is a class of its own: ["a", "b"]; write one label a row' in notes
    assert "'N/A': a class; if this stands for a missing label, leave such rows out" in notes
