"""The encoding of a text file: UTF-8, with or without a byte order mark, or a stated one; never a silent guess.

A file that is neither is refused, and the refusal names the encodings that it may be in, with what it would then say.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import BinaryIO

from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import truncate

_SAMPLE = 1 << 16  # bytes that candidates are judged by
_SHOWN = 24  # letters of how a candidate reads
_LEAST = 0.6  # of the letters must be likely ones
_SURE = 0.8  # of them are in no text of single bytes by chance
_DOUBLE = ("cp949", "euc_jp", "shift_jis", "gb18030", "big5")
_BINARY = {
    b"PK\x03\x04": "a zip archive or an office document; unpack it, or save it as text",
    b"%PDF": "a PDF; convert it first, as with: pdftotext FILE.pdf FILE.txt",
    b"\x1f\x8b": "gzip; name it .gz, or unpack it first",
    b"\xd0\xcf\x11\xe0": "an old office document; save it as text",
    b"BZh": "bzip2; unpack it first",
    b"\xfd7zXZ": "xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd; unpack it first",
    b"SQLite format 3": "a database; export the table as CSV",
    b"PAR1": "Parquet; name it .parquet",
    b"ARROW1": "Arrow; name it .arrow",
}
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def codec_name(encoding: str | None) -> str:
    """Python's name of an encoding; a byte order mark is no part of the text. None: UTF-8.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        found = codecs.lookup(encoding or "utf-8")
    except LookupError:
        found = None
    if found is None or not found._is_text_encoding:
        raise ConfigError(
            f"dataset.encoding: there is no '{truncate(encoding)}'; as utf-8, gb18030, big5, shift_jis, cp949, cp1252"
        )
    return "utf-8-sig" if found.name == "utf-8" else found.name


def decode(content: bytes, place: str, encoding: str | None = None, key: str = "dataset.encoding") -> str:
    """Decode bytes to text; `place` names them, and `key` the setting, in errors.

    Raises:
        ConfigError: there is no such encoding.
        DataError: they are not text in it.
    """
    try:
        text = content.decode(codec_name(encoding))
    except UnicodeError as error:
        raise explain_undecodable(content, place, encoding, key) from error
    if "\0" in text or content.startswith((b"PK\x03\x04", b"%PDF-")):
        raise explain_undecodable(content, place, encoding, key)
    return text


def explain_undecodable(
    content: bytes, place: str, encoding: str | None, key: str = "dataset.encoding", lines_before: int = 0
) -> DataError:
    """Explain bytes that are no text in this encoding, and which settings would read them.

    `lines_before` counts the lines of the file before them.
    """
    for start, what in _BINARY.items():
        if content.startswith(start):
            return DataError(f"{place}: not text but {what}")
    name = codec_name(encoding).removesuffix("-sig").upper()
    found = likely_encodings(content)
    what = f"{place}: not text in {name}{_where(content, lines_before)}"
    if not found:
        return DataError(f"{what}, nor in an encoding known here; save it as UTF-8")
    shown = ", or ".join(f"{key}={one} if it says '{text}'" for one, text in found.items())
    return DataError(f"{what}; set {shown}")


def _where(content: bytes, before: int) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return f" (line {before + content[: error.start].count(10) + 1} holds the byte 0x{content[error.start]:02x})"
    return " (it holds zero bytes)" if b"\0" in content else ""


def likely_encodings(content: bytes) -> dict[str, str]:
    """Return at most three likely encodings of bytes that are not UTF-8, each with its first non-ASCII words."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return {name: _first_words(_head(content, name) or "")}
    head = content[:_SAMPLE]
    if head.count(b"\0") > len(head) // 4:  # letters of ASCII in UTF-16, every other byte of which is zero
        name = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        read = _head(content, name) or ""
        good = sum(letter.isprintable() or letter.isspace() for letter in read)
        return {name: _first_words(read)} if good > 0.9 * len(read) else {}
    if b"\0" in head:
        return {}
    scores = {}
    for name, likely in _LIKELY.items():
        text = _head(content, name)
        strange = [letter for letter in text or "" if ord(letter) > 127]
        if strange:
            scores[name] = sum(map(likely, strange)) / len(strange), text or ""
    ours = sum(byte < 128 and chr(byte).isalpha() for byte in head)
    if ours > sum(byte > 127 for byte in head):  # no word mixes Latin letters with others
        scores = {name: score for name, score in scores.items() if name not in ("cp1251", "koi8_r")}
    if max((scores[name][0] for name in _DOUBLE if name in scores), default=0) > _SURE:
        scores = {name: score for name, score in scores.items() if name in _DOUBLE}
    best = sorted(scores.items(), key=lambda item: -item[1][0])[:3]
    return {name: _first_words(text) for name, (score, text) in best if score >= _LEAST}


def _head(content: bytes, encoding: str) -> str | None:
    """Return the beginning of the text; None where it is none in this encoding."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
        return decoder.decode(content[:_SAMPLE], final=len(content) <= _SAMPLE)
    except UnicodeError:
        return None


def _first_words(text: str) -> str:
    """From the first letter outside ASCII on, or from the first."""
    first = next((place for place, letter in enumerate(text) if ord(letter) > 127 and letter.isalpha()), 0)
    return truncate(" ".join(text[max(0, first - 4) : first + _SHOWN].split()), _SHOWN + 8)


def _of_lead(encoding: str, first: int, last: int) -> Callable[[str], bool]:
    """Return whether a letter lies where a double-byte code has its common letters or its punctuation."""

    def likely(letter: str) -> bool:
        if letter in "\u3000、。「」『』・ー" or "\uff01" <= letter <= "\uff5e" or "\u2010" <= letter <= "\u2030":
            return True
        try:
            return first <= letter.encode(encoding)[0] <= last
        except UnicodeEncodeError:
            return False

    return likely


def _in(*ranges: tuple[str, str]) -> Callable[[str], bool]:
    return lambda letter: any(first <= letter <= last for first, last in ranges)


_LATIN = _in(
    ("\u00a0", "\u00bf"), ("\u00df", "\u00ff"), ("\u2013", "\u2026"), ("\u0152", "\u0161"), ("\u20ac", "\u20ac")
)
_CAPITALS = _in(("\u00c0", "\u00de"))
_LIKELY: dict[str, Callable[[str], float]] = {  # how likely a letter outside ASCII is in a text in this encoding
    "cp949": lambda c: 1.02 * _of_lead("euc_kr", 0xB0, 0xC8)(c),
    "euc_jp": lambda c: 1.01 * ("\u3041" <= c <= "\u30ff") + 0.8 * _of_lead("euc_jp", 0xB0, 0xCF)(c),
    "shift_jis": lambda c: 1.01 * ("\u3041" <= c <= "\u30ff") + 0.8 * _of_lead("shift_jis", 0x88, 0x97)(c),
    "gb18030": _of_lead("gb2312", 0xB0, 0xD7),
    "big5": _of_lead("big5", 0xA4, 0xC6),
    "cp1251": lambda c: 0.9 * ("\u0430" <= c <= "\u044f" or c in "\u0451«»—№") + 0.6 * ("\u0410" <= c <= "\u042f"),
    "koi8_r": lambda c: 0.9 * ("\u0430" <= c <= "\u044f") + 0.6 * ("\u0410" <= c <= "\u042f"),
    "cp1252": lambda c: 0.8 * _LATIN(c) + 0.5 * _CAPITALS(c),
}


def open_text(raw: BinaryIO, encoding: str | None) -> io.TextIOWrapper:
    """Open a stream of text with its line ends as they are; reading raises UnicodeError on invalid bytes."""
    return io.TextIOWrapper(raw, encoding=codec_name(encoding), newline="")
