"""Text that is not UTF-8: never guessed in silence, and refused with the settings that would read it."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from bigmodel.datasets.files.text_encoding import codec_name, decode, likely_encodings
from bigmodel.errors import ConfigError, DataError

TEXTS = {
    "gb18030": "这家酒店很好，服务热情，早餐丰富。房间有点小",
    "big5": "這家酒店很好，服務熱情，早餐豐富。房間有點小",
    "shift_jis": "このホテルはとても良かったです。朝食も美味しい。",
    "euc_jp": "このホテルはとても良かったです。朝食も美味しい。",
    "cp949": "이 호텔은 정말 좋았어요. 아침 식사도 맛있었습니다.",
    "cp1251": "Очень хороший отель, завтрак был вкусным.",
    "koi8_r": "Очень хороший отель, завтрак был вкусным.",
    "cp1252": "L\u2019hôtel était très agréable \u2013 petit déjeuner à 8 €, où est-il\u00a0? Größe",
    "utf-16": "plain letters",
    "utf-16-le": "plain letters",
    "utf-16-be": "plain letters",
    "utf-32": "plain letters",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_first_candidate_is_the_encoding(encoding: str) -> None:
    content = f"text,label\n{TEXTS[encoding]},1\n".encode(encoding)
    found = likely_encodings(content)
    assert next(iter(found)) == encoding
    assert TEXTS[encoding][:6] in next(iter(found.values())) or encoding.startswith("utf")
    with pytest.raises(DataError, match=rf"reviews\.csv: not text in UTF-8.*set dataset\.encoding={encoding} if it"):
        decode(content, "reviews.csv")
    assert decode(content, "reviews.csv", encoding).endswith(f"{TEXTS[encoding]},1\n")


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert decode(codecs.BOM_UTF8 + "宝".encode(), "a.txt") == "宝"
    assert decode(codecs.BOM_UTF8 + b"a", "a.txt", "utf8") == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "a zip archive or an office document; unpack it"),
        (b"%PDF-1.4", "pdftotext"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x00\x01\x02\xff" * 40, "nor in an encoding known here"),
        (b"a\nb\xff\xff\xff\n", r"line 2 holds the byte 0xff"),
    ],
)
def test_what_is_no_text_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode(content, "a.txt")


@pytest.mark.parametrize("encoding", ["gbk99", "base64", ""])
def test_an_encoding_must_exist(encoding: str, tmp_path: Path) -> None:
    if not encoding:
        assert codec_name(None) == "utf-8-sig"
        return
    with pytest.raises(ConfigError, match=rf"dataset\.encoding: there is no '{encoding}'; as utf-8, gb18030"):
        codec_name(encoding)
