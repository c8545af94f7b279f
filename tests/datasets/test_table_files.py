"""The reader of tables: what a file says is read as it says it, or refused with its line and a way out."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel.datasets.files import structured, table_bytes
from bigmodel.datasets.files.locations import find_file
from bigmodel.datasets.files.table_files import Table, TableFormat, read_rows
from bigmodel.errors import ConfigError, DataError
from conftest import Answer


def written(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return folder / name


def cells(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(table.texts(name) for name in table.columns), strict=True)]


@pytest.mark.parametrize(
    ("content", "form", "expected"),
    [
        ("a;b\n1;2\n", {"separator": ";"}, [["1", "2"]]),
        ("a;b\n1;2\n", {"separator": "semicolon"}, [["1", "2"]]),
        ("a\tb\n1\t2\n", {"separator": "tab"}, [["1", "2"]]),
        ("a\tb\n1\t2\n", {"separator": "\\t"}, [["1", "2"]]),
        ("a|b\n1|2\n", {"separator": "|"}, [["1", "2"]]),
        ("1,2\n3,4\n", {"header": False}, [["1", "2"], ["3", "4"]]),
        ("1,2\n3,4\n", {"header": True}, [["3", "4"]]),
        ("1,2\n3,4\n", {"columns": ["x", "y"]}, [["1", "2"], ["3", "4"]]),
        ("a,a\n3,4\n", {"columns": ["x", "y"], "header": True}, [["3", "4"]]),
        ("\ufeffa,b\n1,2\n", {}, [["1", "2"]]),
        ("# x\na,b\n1,2\n#y,z\n# \n3,4\n", {"comment": "#"}, [["1", "2"], ["3", "4"]]),
        ('a,b\n"two\nlines", "1, 2"\n\n\nx,"say ""no"""\n', {}, [["two\nlines", "1, 2"], ["x", 'say "no"']]),
        ('a,b\n5" pipe,"6"\n', {"quoted": False}, [['5" pipe', '"6"']]),
        ("a,b\r\n1,2\n3,4\r5,6", {}, [["1", "2"], ["3", "4"], ["5", "6"]]),
        ("a;b;;\n1;2;;\n", {"separator": ";"}, [["1", "2"]]),
        ("a,b\n1,2,,\n", {}, [["1", "2"]]),
        ("a,b\n" + "x" * 200_000 + ",1\n", {}, [["x" * 200_000, "1"]]),
        ("sep=;\r\na;b\r\n1;2\r\n", {"separator": ";"}, [["1", "2"]]),
        ("\ufeffsep=,\na,b\n1,2\n", {}, [["1", "2"]]),
        ("sep=,\n1,2\n", {"columns": ["x", "y"]}, [["1", "2"]]),
    ],
)
def test_delimited_text(tmp_path: Path, content: str, form: dict[str, Any], expected: list[list[str]]) -> None:
    assert cells(read_rows(written(tmp_path, content), TableFormat(**form))) == expected


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8", "big5"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    file = written(tmp_path, "text,label\n很好的酒店,1\n".encode(encoding))
    assert cells(read_rows(file, TableFormat(encoding=encoding))) == [["很好的酒店", "1"]]
    if encoding != "utf-8":
        with pytest.raises(
            DataError, match=rf"a\.csv: not text in UTF-8.*dataset\.encoding={encoding} if it says '.*好"
        ):
            read_rows(file, TableFormat())
    with pytest.raises(ConfigError, match=r"dataset\.encoding: there is no 'utf-99'"):
        read_rows(file, TableFormat(encoding="utf-99"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"a": "x", "b": 1}\n\n{"b": 2.5, "a": null}\n'),
        ("a.ndjson", codecs.BOM_UTF8 + b'{"a": "x", "b": 1}\r\n{"b": 2.5}\r\n'),
        ("a.json", b'[{"a": "x", "b": 1}, {"b": 2.5}]'),
        ("a.json", b'{"data": [{"a": "x", "b": 1}, {"b": 2.5}], "version": 1}'),
        ("a.json", b'{"a": ["x", null], "b": [1, 2.5]}'),
        ("a.csv.gz", gzip.compress(b"a,b\nx,1\n,2.5\n", mtime=0)),
        ("a.csv.bz2", bz2.compress(b"a,b\nx,1\n,2.5\n")),
        ("a.tsv", b"a\tb\nx\t1\n\t2.5\n"),
    ],
)
def test_other_forms(tmp_path: Path, name: str, content: bytes) -> None:
    table = read_rows(written(tmp_path, content, name), TableFormat(separator=None), ["a", "b"])
    assert cells(table) == [["x", "1"], ["", "2.5"]]
    assert table.numbers("b")[0].tolist() == [1, 2.5]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "stream.arrow", "csv.zst"])
def test_files_that_know_types(tmp_path: Path, ending: str) -> None:
    import pyarrow
    from pyarrow import feather, ipc, parquet

    table = pyarrow.table({"a": ["x", None], "b": [1, 2], "c": pyarrow.array([0.1, None], pyarrow.float32())})
    file = tmp_path / f"a.{ending}"
    match ending:
        case "parquet":
            parquet.write_table(table, file)
        case "feather":
            feather.write_feather(table, file)
        case "csv.zst":
            with pyarrow.CompressedOutputStream(str(file), "zstd") as stream:
                stream.write(b"a,b,c\nx,1,0.10000000149011612\n,2,\n")
        case _:
            make = ipc.new_stream if "stream" in ending else ipc.new_file
            with make(str(file), table.schema) as writer:
                writer.write_table(table)
    found = read_rows(file, TableFormat(), ["a"])
    assert cells(found) == [["x", "1", "0.10000000149011612"], ["", "2", ""]]
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(DataError, match=r"cannot be read as|damaged or cut off"):
        read_rows(file, TableFormat())


@pytest.mark.parametrize(
    ("content", "form", "needed", "message"),
    [
        ('a,b\n1,"x\n2,y\n', {}, [], r"a\.csv:2: not CSV: .*never closed"),
        ('a,b\n"x"y,1\n', {}, [], r"a\.csv:2: not CSV"),
        ("a;b\n1;2\n", {}, ["a"], r"a\.csv:1: has one column, 'a;b'; .* dataset\.separator=semicolon"),
        ("a,b\n1,2\n", {}, ["c"], r"a\.csv:1: needs one column 'c'; the columns are: a, b; if the first line is a row"),
        ("a,b\n1,2\n", {}, ["A"], r"needs one column 'A'; .*did you mean 'a'\?"),
        ("a,a\n1,2\n", {}, ["a"], r"needs one column 'a', and columns 1 and 2 have this name; .*dataset\.header=true"),
        ("1.5,2\n3,4\n", {}, [], r"a\.csv:1: the first line holds numbers .*dataset\.header=false"),
        ("", {}, [], r"a\.csv: is empty"),
        ("sep=;\na;b\n1;2\n", {}, [], r"a\.csv:1: says that fields are separated by ';'; set dataset\.separator=\";\""),
        ("a,b\n1\0,2\n", {}, [], r"it holds zero bytes"),
        (",".join(map(str, range(300_000))) + "\n", {}, [], r"has 300,000 columns; at most 50,000"),
    ],
)
def test_refusals_name_the_line_and_a_way_out(
    tmp_path: Path, content: str, form: dict[str, Any], needed: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(written(tmp_path, content), TableFormat(**form), needed)


def test_bad_rows_are_skipped_where_asked_and_counted(tmp_path: Path) -> None:
    file = written(tmp_path, 'a,b\n1,2\n3\n"x"y,4\n5,6,7\n8,9\n')
    with pytest.raises(DataError, match=r"a\.csv:4: not CSV"):
        read_rows(file, TableFormat())
    table = read_rows(file, TableFormat(broken="skip"))
    assert cells(table) == [["1", "2"], ["8", "9"]]
    assert [line.split(": ")[0].rpartition(":")[2] for line in table.skipped] == ["3", "4", "5"]
    assert table[1].location == f"{file}:6"
    lines = written(tmp_path, '{"a": 1}\n{"a": \n[1]\n', "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON: .* at character 7") as told:
        read_rows(lines, TableFormat())
    assert told.value.lines[1].startswith(f"{lines}:3: not an object")
    assert len(read_rows(lines, TableFormat(broken="skip")).skipped) == 2


def test_names_that_are_there_twice_are_told(tmp_path: Path) -> None:
    table = read_rows(written(tmp_path, "a,b,a,,\n1,2,3,,x\n"), TableFormat(), ["b"])
    assert [*table.columns] == ["a", "b", "a.1", "column5"]
    assert "'a' in column 3 is 'a.1'" in " ".join(table.notes)
    assert "1 column without a name or a value" in " ".join(table.notes)


def test_decimal_commas(tmp_path: Path) -> None:
    file = written(tmp_path, "a;b\n1,5;2\n-3,25;\n")
    table = read_rows(file, TableFormat(separator=";", decimal=","))
    assert table.numbers("a")[0].tolist() == [1.5, -3.25]
    assert (
        read_rows(file, TableFormat(separator=";")).numbers("a")[1][0] == "'1,5' is not a number; dataset.decimal=','?"
    )
    thousands = read_rows(written(tmp_path, "a\n1.000\n"), TableFormat(separator=";", decimal=","))
    assert thousands.numbers("a")[1] == {
        0: "'1.000' is not a number; take marks of thousands out, or is it a decimal mark (dataset.decimal='.')?"
    }


def test_a_decimal_comma_is_a_matter_of_texts(tmp_path: Path) -> None:
    form = TableFormat(separator=";", decimal=",", missing=["", "-200"])
    lines = read_rows(written(tmp_path, '{"a": 1.5}\n{"a": -200}\n{"a": 1250}\n', "a.jsonl"), form)
    assert lines.numbers("a")[0].tolist() == pytest.approx([1.5, math.nan, 1250], nan_ok=True)
    assert [row.number("a") for row in lines] == pytest.approx([1.5, math.nan, 1250], nan_ok=True)
    fields = read_rows(written(tmp_path, "a;b\n1,5;x\n1.5;x\n"), form)
    assert fields[0].number("a") == 1.5
    with pytest.raises(DataError, match=r":3: column 'a': '1\.5' is not a number"):
        fields[1].number("a")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_is_there_twice_in_an_object_is_refused(tmp_path: Path, name: str) -> None:
    text = '{"a": 1, "b": {"c": 1, "c": 2}}'
    with pytest.raises(DataError, match="the key 'c' is there twice in one object"):
        read_rows(written(tmp_path, text if name == "a.jsonl" else f"[{text}]", name), TableFormat())


def test_a_folder_of_parts_is_told(tmp_path: Path) -> None:
    (tmp_path / "parts.parquet").mkdir()
    with pytest.raises(DataError, match=r"dataset\.train: .*parts\.parquet is a folder; name a file in it"):
        find_file(str(tmp_path), "parts.parquet", "train", None)


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for file in (tmp_path / "pipe.csv", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="not a regular file"):
            read_rows(file, TableFormat())
    with (tmp_path / "sparse.csv").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(DataError, match="a sparse file"):
        read_rows(tmp_path / "sparse.csv", TableFormat())
    (tmp_path / "large.csv").write_text("a,b\n" + "1,2\n" * 1000)
    monkeypatch.setattr(table_bytes, "total_memory", lambda: 1000)
    with pytest.raises(DataError, match="do not fit in this computer's memory"):
        read_rows(tmp_path / "large.csv", TableFormat())
    with pytest.raises(DataError, match=r"is an Excel workbook; save the sheet as CSV"):
        read_rows(written(tmp_path, b"PK", "a.xlsx"), TableFormat())


@pytest.mark.parametrize("ending", ["csv.gz", "csv.xz", "jsonl.gz", "parquet", "arrow", "stream.arrow"])
def test_what_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    import lzma

    import pyarrow
    from pyarrow import ipc, parquet

    file, rows, text = tmp_path / f"a.{ending}", 5000, "x" * 1000
    if ending.endswith(("gz", "xz")):
        line = json.dumps({"a": text}) if "json" in ending else text
        pack = gzip.compress if ending.endswith("gz") else lzma.compress
        file.write_bytes(pack(("a\n" * ("csv" in ending) + f"{line}\n" * rows).encode()))
    elif ending == "parquet":
        parquet.write_table(pyarrow.table({"a": [text] * rows}), file)
    else:
        make = ipc.new_stream if "stream" in ending else ipc.new_file
        table = pyarrow.table({"a": [text] * rows})
        with make(str(file), table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table, max_chunksize=1000)
    assert file.stat().st_size < 200_000
    assert len(read_rows(file, TableFormat())) == rows
    for module in (table_bytes, structured):
        monkeypatch.setattr(module, "total_memory", lambda: 10_000_000)
    with pytest.raises(DataError, match=r"do not fit in this computer's memory"):
        read_rows(file, TableFormat())


def test_standard_input_may_begin_with_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa,b\n1,2\n"), encoding="utf-8"))
    assert cells(read_rows("-", TableFormat(), ["a"])) == [["1", "2"]]


_PIECES = st.sampled_from(["a", " ", '"', '""', ",", "\n", "\r\n", "é", "#", '"a"', '"b,c"', ',"q\nr"', "\n\n", ' "z"'])


@settings(max_examples=60, deadline=None)
@given(st.lists(_PIECES, max_size=20), st.integers(1, 3))
def test_rows_and_lines_are_those_of_the_strict_reader(pieces: list[str], width: int) -> None:
    """Python's csv, cell for cell: what it refuses is refused, what it reads is read, on the same lines."""
    text = ",".join(f"h{n}" for n in range(width)) + "\n" + "".join(pieces)
    expected: list[tuple[int, list[str]]] | None = []
    reader, before = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True), 0
    try:
        for fields in reader:
            if fields:
                expected.append((before + 1, fields))
            before = reader.line_num
    except csv.Error:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(text))
        try:
            table = read_rows("-", TableFormat(strip=""))
        except DataError:
            assert expected is None
            return
    assert expected is not None
    places = [int(row.location.rpartition(":")[2]) for row in table]
    assert places == [line for line, _ in expected[1:]]
    assert cells(table) == [(fields + [""] * width)[:width] for _, fields in expected[1:]]
    wrong = table.width_problems([*table.columns])
    assert sorted(wrong) == [n for n, (_, cut) in enumerate(expected[1:]) if len(cut) < width or any(cut[width:])]


@pytest.mark.slow
@pytest.mark.parametrize("separator", [";", "|", "tab", "\\t"])
def test_separators_can_be_typed_as_they_are(cli: Callable[..., Answer], tmp_path: Path, separator: str) -> None:
    between = "\t" if separator in ("tab", "\\t") else separator
    written(tmp_path, "\n".join(["a*b", *(f"{n}*{n % 3}" for n in range(9))]).replace("*", between), "load.csv")
    data = ("dataset=series", "data_dir=.", "dataset.file=load.csv", f"dataset.separator={separator}")
    shape = ("dataset.window=1", "dataset.horizon=1", "dataset.split=[4,2,3]", "task=forecasting", "dry_run=true")
    plan = cli(*data, *shape, "model=dlinear", "model.kernel=1", "device=cpu", cwd=tmp_path)
    assert (plan.code, "2 series, 1 step from 1" in plan.out) == (0, True), plan.err
