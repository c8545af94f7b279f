"""Pairs of texts: tables and gettext's catalogues become tokens, none is in two splits, bad ones have a place."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from bigmodel.datasets.files.gettext import read_catalogue
from bigmodel.datasets.text.parallel_text import gettext_pairs, parallel_text
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import ConfigError, DataError

HOW = {
    "source_column": "en",
    "target_column": "fr",
    "tokenizer": "char",
    "vocabulary": "none",
    "context": 4,
    "val_fraction": 0.0,
}


def _made(folder: Path, train: str = "a.csv", **how: Any) -> Any:
    return parallel_text(str(folder), train, **(HOW | how))


def test_a_pair_is_its_source_then_its_target_begun_and_the_target_ended(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('en,fr\nab,"c,a"\nabc,abcba\n')
    (tmp_path / "b.tsv").write_text('note\tfr\ten\nx\té"\ta\n')
    dataset = _made(tmp_path, test="b.tsv")
    inputs, targets = dataset.splits["train"]
    characters = '",abcé'
    assert dataset.properties == {"vocab_size": 6, "characters": characters}
    assert inputs.tolist() == [[2, 3, -1, -1, 6, 4, 1, 2, -1]]  # the second is too long
    assert targets.tolist() == [[4, 1, 2, 6, -1]]
    assert "(1 longer one left out)" in dataset.description
    assert dataset.splits["test"][1].tolist() == [[5, 0, 6, -1, -1]]
    assert tokenizer_from_spec(dataset.processor_spec()["tokenizer"]).decode([4, 1, 2]) == "c,a"
    as_bytes = _made(tmp_path, test="b.tsv", tokenizer="byte")
    assert as_bytes.properties == {"vocab_size": 256, "characters": None}
    assert as_bytes.splits["test"][1].tolist() == [[0xC3, 0xA9, 0x22, 256, -1]]
    with pytest.raises(ConfigError, match="vocab_size: got 7, but the data has 6; leave it null"):
        _made(tmp_path, test="b.tsv", vocab_size=7)
    with pytest.raises(DataError, match="no pair of the train split has at most context=1 tokens"):
        _made(tmp_path, context=1)


def test_sources_of_the_same_words_are_never_trained_on_and_tested(tmp_path: Path) -> None:
    rows = [f"{one}{n} {n},{n}" for n in range(50) for one in ("a", "A")] + [f'"{n}, a{n}",{n}' for n in range(50)]
    (tmp_path / "a.csv").write_text("\n".join(["en,fr", *rows]))
    dataset = _made(tmp_path, val_fraction=0.1, test_fraction=0.2, context=8)
    found = {split: set(map(tuple, targets.tolist())) for split, (_, targets) in dataset.splits.items()}
    assert {split: (len(dataset.splits[split][1]), len(found[split])) for split in found} == {
        "train": (108, 36),
        "val": (12, 4),
        "test": (30, 10),
    }
    assert not found["train"] & found["test"] | found["train"] & found["val"] | found["val"] & found["test"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("en,fr\na,b\n,c\n", r"a\.csv:3: column 'en': empty"),
        ("en,fr\na\n", r"a\.csv:2: column 'fr': not there: the row ends after 1"),
        ("en,de\na,b\n", r"a\.csv:1: needs one column 'fr'; the columns are: en, de"),
        ("en,fr\n", r"a\.csv: holds no pairs"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        _made(tmp_path)


def _catalogue(order: str, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A file in the format of the GNU gettext manual."""
    first, both = 28 + 16 * len(pairs), [source for source, _ in pairs] + [target for _, target in pairs]
    places = [first + sum(len(text) + 1 for text in both[:n]) for n in range(len(both))]
    tables = [number for text, place in zip(both, places, strict=True) for number in (len(text), place)]
    head = (0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return struct.pack(f"{order}{7 + len(tables)}I", *head, *tables) + b"".join(text + b"\0" for text in both)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_catalogue_is_read_as_gettext_writes_it(tmp_path: Path, order: str) -> None:
    pairs = [
        (b"", b"Content-Type: text/plain; charset=ISO-8859-1\n"),
        (b"Guinea", b"Guin\xe9e"),
        (b"menu\4File", b"Fichier"),
        (b"%d file\0%d files", b"%d fichier\0%d fichiers"),
        (b"two\nlines", b"deux\nlignes"),
    ]
    folder = tmp_path / "fr" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    content = _catalogue(order, pairs)
    (folder / "a.mo").write_bytes(content)
    assert read_catalogue(folder / "a.mo") == [("Guinea", "Guinée"), ("File", "Fichier")]
    how = {"package": "some-codes", **{k: HOW[k] for k in ("tokenizer", "vocabulary")}, "test_fraction": 0.5}
    (folder / "b.mo").write_bytes(_catalogue(order, [(b"Guinea", b"other"), (b"so", b"si")]))
    dataset = gettext_pairs(str(tmp_path), "fr", ["a", "b"], context=9, val_fraction=0.0, **how)
    targets = [targets for _, targets in dataset.splits.values()]
    decode = tokenizer_from_spec(dataset.processor_spec()["tokenizer"]).decode
    size = dataset.properties["vocab_size"]
    found = {decode([t for t in row if 0 <= t < size]) for part in targets for row in part.tolist()}
    assert found == {"Guinée", "Fichier", "si"}
    with pytest.raises(DataError, match=r"dataset\.names: there is no '.*c\.mo'; .* apt install some-codes"):
        gettext_pairs(str(tmp_path), "fr", ["c"], context=9, val_fraction=0.0, **how)
    for damaged in (content[:4], content[:40], content[:-30], b"x" * 99):
        (folder / "a.mo").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.mo: cannot be read as a catalogue of gettext"):
            read_catalogue(folder / "a.mo")
