"""Text on a terminal: only what would do harm is escaped, and wide letters take two columns."""

from __future__ import annotations

import io
import json
import sys

import pytest

from bigmodel.commands.exit_codes import _open_streams
from bigmodel.formatting import columns_of, cut, escape_control, format_count, json_line, left, right, truncate
from bigmodel.runs.comparison.tables import format_table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("宝\x1b[2J宝", "宝\\x1b[2J宝"),
        ("宝\u3000宝\u00a0é", "宝\u3000宝\u00a0é"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\u202eb\u2028c\x9bd\ufeff", "a\\u202eb\\u2028c\\x9bd\\ufeff"),
        ("C:\\temp", "C:\\temp"),
        ("caf\udce9\n", "caf\\udce9\\n"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
    ],
)
def test_only_what_does_harm_is_escaped(text: str, shown: str) -> None:
    assert escape_control(text) == truncate(text) == shown


def test_json_keeps_letters_where_the_stream_has_them() -> None:
    value = {"input": "宝é", "class": "a\x9b\u202e\n\u2028"}
    line = json_line(value, "utf-8")
    assert line == '{"input": "宝é", "class": "a\\u009b\\u202e\\n\\u2028"}'
    assert json_line(value, "latin-1").isascii()
    assert json_line({"input": "caf\udce9 宝"}, "utf-8").isascii()
    for encoding in ("utf-8", "ascii", "no such one"):
        assert json.loads(json_line(value, encoding)) == value


def test_wide_letters_take_two_columns_and_marks_none() -> None:
    assert [columns_of(text) for text in ("ab", "宝a", "e\u0301", "ｱ", "한", "")] == [2, 3, 1, 1, 2, 0]
    assert [left("宝", 4), right("宝", 4)] == ["宝  ", "  宝"]
    assert [cut("宝宝宝", 6), cut("宝宝宝", 5), cut("宝宝宝", 4), cut("abc", 2, "")] == ["宝宝宝", "宝宝…", "宝…", "ab"]
    lines = format_table(["name", "n"], [["宝宝", "1"], ["abc", "10"]])
    assert [columns_of(line) for line in lines] == [8, 8, 8]
    assert all(columns_of(line) <= 9 for line in format_table(["name", "n"], [["宝宝宝宝宝宝宝宝", "1"]], 9))


def test_a_letter_that_the_terminal_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    _open_streams()
    print("宝", flush=True)
    assert stream.buffer.getvalue() == b"\\u5b9d\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 rows"), (1, "1 row"), (1.0, "1 row"), (2, "2 rows"), (1204, "1,204 rows"), (0.5, "0.5 rows")],
)
def test_a_count_of_one_has_a_singular_noun(count: float, text: str) -> None:
    assert format_count(count, "row") == text
    assert format_count(count, "class", "classes") == text.replace("rows", "classes").replace("row", "class")
