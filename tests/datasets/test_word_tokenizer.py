"""Words of any script: marks stay with their letters, and scripts without spaces are cut by letters."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from bigmodel.datasets.text.labelled_text import labelled_text
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.datasets.text.word_tokenizer import (
    KnownCharTokenizer,
    WordTokenizer,
    fit_char_tokenizer,
    fit_word_tokenizer,
    split_words,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's NOT 2,5 foo_bar!", ["it", "'", "s", "not", "2", ",", "5", "foo_bar", "!"]),
        ("这家酒店2019年很好，OK。", ["这", "家", "酒", "店", "2019", "年", "很", "好", "，", "ok", "。"]),
        ("ラーメンとカレー・だ", [*"ラーメンとカレー・だ"]),
        ("ดีมาก ที่นี่", ["ดี", "ม", "า", "ก", "ที่", "นี่"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("이 호텔은", ["이", "호텔은"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("café", ["café"]),
        ("👍🏽 1️⃣ ❤\ufe0f!", ["👍", "🏽", "1️⃣", "❤\ufe0f", "!"]),
        ("ສະບາຍ မြန်မာ", ["ສ", "ະ", "ບ", "າ", "ຍ", "မြ", "န်", "မာ"]),
        ("\u0301a", ["\u0301", "a"]),
    ],
)
def test_rule_2_knows_the_scripts(text: str, words: list[str]) -> None:
    assert split_words(text, 2) == [unicodedata.normalize("NFC", word) for word in words]
    assert split_words(unicodedata.normalize("NFD", text), 2) == split_words(text, 2)


def test_rule_1_is_as_it_was_and_old_checkpoints_keep_it() -> None:
    assert split_words("cafe\u0301 好的", 1) == ["cafe", "\u0301", "好的"]
    old = tokenizer_from_spec({"name": "word", "words": ["好的", "cafe"]})
    assert old.encode("好的 cafe\u0301").tolist() == [1, 2, 0]
    assert old.spec == {"name": "word", "words": ["好的", "cafe"]}
    new = tokenizer_from_spec(json.loads(json.dumps(fit_word_tokenizer(["好的"], rule=2).spec)))
    assert new.encode("的好x").tolist() == [2, 1, 0]
    for text in ("plain English, as ever!", "naïve Straße 20 €", "ÀÉ Ωμέγα Привет"):
        assert split_words(text, 1) == split_words(text, 2)
    with pytest.raises(ValueError, match="tokenizer"):
        tokenizer_from_spec({"name": "word", "words": ["a"], "rule": 3})


def test_characters_that_training_did_not_have_are_one_token() -> None:
    made = fit_char_tokenizer(["ab b", "be\u0301"], 1)
    assert made.encode("bx\u00e9e\u0301").tolist() == [1, 0, 4, 4]
    assert tokenizer_from_spec(json.loads(json.dumps(made.spec))).decode([1, 0, 2]) == "b<unk> "
    with pytest.raises(ValueError, match="one each"):
        KnownCharTokenizer(["ab"])
    with pytest.raises(ValueError, match="distinct"):
        WordTokenizer(["a", "a"], 2)


@pytest.mark.slow
def test_chinese_poems_need_no_spaces(tmp_path: Path) -> None:
    """Whether there are blanks between the characters is nothing that a model can see."""
    folder = os.environ.get("BIGMODEL_DATA_DIR")
    if folder is None or not (file := Path(folder) / "shared/text/tang_poems.txt").is_file():
        pytest.skip("BIGMODEL_DATA_DIR holds no Tang poems")
    poems = [poem.strip().split("\n") for poem in file.read_text(encoding="utf-8").split("\n\n")]
    chosen = [("".join(lines[2:]), lines[1]) for lines in poems if lines[1:2] in (["李白"], ["杜甫"])]
    marks = {}
    for name, joint in (("plain", ""), ("spaced", " ")):
        rows = "".join(f"{joint.join(text)}\t{author}\n" for text, author in chosen)
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{rows}", encoding="utf-8")
        for rule in (1, 2):
            dataset = labelled_text(
                str(tmp_path), f"{name}.tsv", ["text"], "label", "word", 2, 64, 0.0, 0.2, word_rule=rule
            )
            marks[name, rule] = dataset.fingerprint, "unknown" in " ".join(dataset.notes)
    assert marks["plain", 2] == marks["spaced", 2] == marks["spaced", 1]
    assert [marks["plain", rule][1] for rule in (1, 2)] == [True, False]
