"""Text as tokens: what is encoded is decoded, every token is a target once, in an order of the seed and the epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel.datasets.text import token_files
from bigmodel.datasets.text.continuous import names, text
from bigmodel.datasets.text.tokenizers import ByteTokenizer, CharTokenizer, tokenizer_from_spec
from bigmodel.errors import ConfigError, DataError
from bigmodel.interfaces import LoaderOptions

CPU = torch.device("cpu")
VOCABULARY = {"encoder.json": '{"a": 0, "b": 1, "ab": 2, "Ġ": 3}', "vocab.bpe": "#version: 0.2\na b\n"}


def _text(path: Path, **how: Any) -> Any:
    own = {"tokenizer": "char", "vocabulary": str(path.parent), "cache_dir": str(path.parent / "tokens")}
    return text(str(path), **(own | {"context": 4, "val_fraction": 0.2} | how))


@given(st.text(max_size=40))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_what_is_encoded_is_decoded(content: str) -> None:
    encodable = content.encode("utf-8", "replace").decode()
    tokenizers = [ByteTokenizer(), *([CharTokenizer("".join(sorted(set(encodable))))] if encodable else [])]
    for tokenizer in tokenizers:
        tokens = tokenizer_from_spec(tokenizer.spec).encode(encodable)
        assert tokenizer.decode(tokens.tolist()) == encodable
        assert all(0 <= token < tokenizer.size for token in tokens)


def test_every_token_is_a_target_once_and_an_epoch_has_no_gap(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("".join(map(chr, range(100, 100 + 60))), encoding="utf-8")
    dataset = _text(file)
    data = dataset.loader(LoaderOptions(CPU, 3, seed=1))
    assert data.splits == {"train": 10, "val": 3}
    held = torch.cat([batch.targets.flatten() for batch in data.eval_batches("val")])
    assert held[held >= 0].tolist() == list(range(49, 60))
    starts = []
    for epoch in range(3):
        batches = list(data.train_batches(epoch * 3, epoch * 3 + 3))
        for batch in batches:
            assert batch.targets.equal(batch.inputs + 1)
        taken = sorted(torch.cat([batch.targets.flatten() for batch in batches]).tolist())
        assert taken == list(range(taken[0], taken[0] + 40))
        starts.append(taken[0])
    assert len(set(starts)) > 1
    assert next(data.train_batches(4, 5)).inputs.equal(list(data.train_batches(0, 9))[4].inputs)


def test_a_long_text_is_encoded_once_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("north and south\n" * 20)
    (folder / "b.txt").write_text("east and west\n" * 20)
    short = _text(folder).tokens_N
    monkeypatch.setattr(token_files, "_KEPT_FROM", 0)
    long = _text(folder)
    assert isinstance(long.tokens_N, np.memmap)
    assert np.array_equal(long.tokens_N, short)
    (kept,) = (tmp_path / "tokens").iterdir()
    assert kept.stat().st_size == len(short)
    monkeypatch.setattr(CharTokenizer, "encode", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(_text(folder).tokens_N, short)
    assert "mapped from disk" in _text(folder).loader(LoaderOptions(CPU, 2, seed=0)).describe_placement
    monkeypatch.undo()
    monkeypatch.setattr(token_files, "_KEPT_FROM", 0)
    assert np.array_equal(_text(folder, cache_dir=str(folder / "a.txt" / "no")).tokens_N, short)
    monkeypatch.setattr(np, "memmap", _refuse)
    assert np.array_equal(_text(folder).tokens_N, short)  # kept by another user, and closed to us


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_byte_pairs_of_a_published_vocabulary(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    for name, content in VOCABULARY.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "text.txt").write_text("ab ba ab" * 10)
    dataset = _text(tmp_path / "text.txt", tokenizer="bpe")
    assert dataset.tokens_N[:6].tolist() == [2, 3, 1, 0, 3, 2]
    assert tokenizer_from_spec(dataset.processor_spec()["tokenizer"]).decode([2, 3, 1]) == "ab b"
    assert dataset.properties == {"vocab_size": 4, "bytes_per_token": pytest.approx(8 / 6, rel=0.05)}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no text at"):
        _text(tmp_path / "none.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"bad\.txt: not text"):
        _text(tmp_path / "bad.txt")
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(DataError, match="2 training tokens, too few for one window of context=4"):
        _text(tmp_path / "short.txt").loader(LoaderOptions(CPU, 1, seed=0))
    with pytest.raises(DataError, match=r"dataset\.vocabulary"):
        _text(tmp_path / "short.txt", tokenizer="bpe")
    with pytest.raises(ConfigError, match=r"vocab_size: got \d+, but the data has 3; leave it null"):
        _text(tmp_path / "short.txt", vocab_size=5)
    with pytest.raises(DataError, match="no token for 'z'"):
        CharTokenizer("abc").encode("az")
    with pytest.raises(ValueError, match="tokenizer"):
        tokenizer_from_spec({"name": "char", "characters": 5})


def test_names_are_shuffled_lines(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"name{number:03}" for number in range(50)))
    dataset = names(None, str(tmp_path), context=8, val_fraction=0.1)
    lines = dataset.tokenizer.decode(dataset.tokens_N.tolist()).split("\n")[1:-1]
    assert sorted(lines) == [f"name{number:03}" for number in range(50)] != lines
