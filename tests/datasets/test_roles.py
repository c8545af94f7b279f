"""What a table's columns are for: inferred, told, and the same in training and in prediction."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigmodel.datasets.files.columns import number
from bigmodel.datasets.files.timestamps import date_parts
from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.datasets.tables.table import table
from bigmodel.errors import DataError
from bigmodel.inference.processors.tables import TableProcessor
from conftest import Answer

KINDS = ("a", "b", "c")


def houses(folder: Path, count: int = 60) -> Path:
    draw = random.Random(0)
    lines = [",id,sold,area,kind,garage,street,const,price"]
    for n in range(count):
        kind, area = draw.choice(KINDS), draw.randint(30, 200)
        sold = f"2024-{1 + n % 12:02d}-{1 + n % 28:02d}"
        row = (n, 7000 + 3 * n, sold, area, kind, draw.choice(("yes", "no")), f"Street {n}", 1, area * 1000.5)
        lines.append(",".join(map(str, row)))
    (folder / "houses.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "houses.csv"


def opened(folder: Path, file: str = "houses.csv", **settings: Any) -> TensorDataset:
    roles = {
        "target": "price",
        "target_type": "auto",
        "categorical_columns": [],
        "numeric_columns": None,
        "ignored_columns": [],
    }
    form = {"roles": "infer", "val_fraction": 0.1, "test_fraction": 0.2, "missing": ["", "?", "NA"], "stratify": True}
    return table(**{"root": str(folder), "train": file} | roles | form | settings)


def test_a_date_means_the_same_alone_as_in_its_column() -> None:
    column = ["2024-01-30", "20240131", "2024-02"]
    together, problems = date_parts(column, None)
    assert problems == {}
    assert together[:, 0].tolist() == [19752, 19753, 19754]
    for row, text in enumerate(column):
        assert date_parts([text], None)[0].tolist() == [together[row].tolist()]
    parts, problems = date_parts(["5", "1706659200000", ""], None)
    assert np.isnan(parts).all()
    assert list(problems) == [0, 1]


def test_roles_are_inferred_and_told(tmp_path: Path) -> None:
    houses(tmp_path)
    data = opened(tmp_path)
    assert data.spec["numbers"] == ["area"]
    assert list(data.spec["categories"]) == ["kind", "garage"]
    assert data.spec["dates"] == {"sold": None}
    assert (data.properties["target_type"], data.properties["num_numeric"], data.properties["outputs"]) == (
        "number",
        5,
        1,
    )
    told = "\n".join(data.notes)
    for words in (
        "numbers: area",
        "booleans: garage",
        "dates: sold",
        "id (an identifier)",
        "street (texts, nearly all",
    ):
        assert words in told
    assert "'' (numbers its rows" in told
    assert "const (always the same)" in told
    given = opened(
        tmp_path, numeric_columns=["id"], categorical_columns=["area"], ignored_columns=["kind"], target_type="class"
    )
    assert given.spec["numbers"] == ["id"]
    assert list(given.spec["categories"]) == ["area", "garage"]


def test_raw_rows_are_prepared_as_training_rows_were(tmp_path: Path) -> None:
    file = houses(tmp_path)
    data = opened(tmp_path, val_fraction=0.0, test_fraction=0.0)
    carried = json.loads(json.dumps(dict(data.spec)))
    kind = TableProcessor(**{key: value for key, value in carried.items() if key != "kind"})
    inputs = data.splits["train"][0][torch.arange(60)]
    assert torch.equal(torch.stack([kind.load(place) for place in kind.list_inputs(str(file))]), inputs)
    example = kind.random_inputs(3, torch.Generator())
    assert example.shape == (3, inputs.shape[1])


@pytest.mark.parametrize(
    ("dates", "settings", "message"),
    [
        (["01/31/2023", "02/01/2023", "12/25/2022"], {}, "'01/31/2023' is not an ISO date.*time_format='%m/%d/%Y'"),
        (["31.01.2024", "01.02.2023", "25.12.2022"], {}, r"time_format='%d\.%m\.%Y'"),
        (["2024-9-30", "2024-10-1", "2023-1-5"], {}, "'2024-9-30' is not an ISO date.*time_format='%Y-%m-%d'"),
        (["01/02/2023", "03/04/2023", "05/06/2023"], {}, "time_format='%d/%m/%Y' or '%m/%d/%Y'"),
        (["2024-01-01", "20240102x", "5"], {}, "'20240102x' is not an ISO date"),
        (["1", "2", "2024-01-01"], {}, "'2024-01-01' is not a number, as the first value is"),
        (["2024-01-01", "", "2024-01-03"], {}, "column 'day': missing"),
        (["01/31/2023"] * 3, {"time_format": "%d/%m/%Y"}, "'01/31/2023' is not of the form dataset.time_format"),
    ],
)
def test_dates_that_do_not_sort_are_refused(
    tmp_path: Path, dates: list[str], settings: dict[str, Any], message: str
) -> None:
    lines = ["day,x,price", *(f"{day},{n},{n}.5" for n, day in enumerate(dates * 4))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        opened(tmp_path, "t.csv", time="day", **settings)


@pytest.mark.parametrize(
    ("form", "dates"),
    [
        ("%m/%d/%Y", [f"{1 + n % 12:02d}/15/{2020 + n // 12}" for n in range(24)]),
        ("%d.%m.%Y", [f"15.{1 + n % 12}.{2020 + n // 12}" for n in range(24)]),
        (None, [f"{2020 + n // 12}-{1 + n % 12:02d}" for n in range(24)]),
        (None, [f"{2020 + n // 12}-{1 + n % 12:02d}-01T00:00:00+02:00" for n in range(24)]),
        (None, [str(n) for n in range(24)]),
    ],
)
def test_the_latest_rows_are_held_out_in_any_stated_format(tmp_path: Path, form: str | None, dates: list[str]) -> None:
    order = random.Random(1).sample(range(24), 24)
    lines = ["day,x,price", *(f"{dates[n]},{n},{n}.5" for n in order)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = opened(tmp_path, "t.csv", time="day", time_format=form, target_type="number", roles="as_given")
    mean, std = data.spec["mean"][0], data.spec["std"][0]
    x = {name: sorted((inputs[:, 0] * std + mean).round().int().tolist()) for name, (inputs, _) in data.splits.items()}
    assert x == {"train": [*range(17)], "val": [17, 18], "test": [*range(19, 24)]}


def test_a_class_of_one_row_stays_in_training(tmp_path: Path) -> None:
    for seed in range(8):
        rows = [f"{n},{'rare' if n == seed else 'ab'[n % 2]}" for n in range(20)]
        (tmp_path / "c.csv").write_text("\n".join(["x,kind", *rows]) + "\n", encoding="utf-8")
        data = opened(tmp_path, "c.csv", target="kind", numeric_columns=["x"])
        labels = {name: targets.tolist() for name, (_, targets) in data.splits.items()}
        rare = data.spec["classes"].index("rare")
        assert labels["train"].count(rare) == 1
        assert {name: len(part) for name, part in labels.items()} == {"train": 14, "val": 2, "test": 4}
        assert any("fewer than 5" in note and "rare 1" in note for note in data.notes)


def test_classes_that_are_spelled_otherwise_are_told_and_na_names_its_setting(tmp_path: Path) -> None:
    kinds = ("1", "1.0", "yes", "YES", "a b", "a\u00a0b")
    rows = [f"{n}.5,{kinds[n % 6]}" for n in range(60)]
    (tmp_path / "c.csv").write_text("\n".join(["x,kind", *rows]) + "\n", encoding="utf-8")
    told = " ".join(opened(tmp_path, "c.csv", target="kind").notes)
    for words in ("'1' and '1.0'", "'YES' and 'yes'", "'a b' and 'a"):
        assert words in told
    (tmp_path / "c.csv").write_text("x,kind\n1,NA\n2,EU\n3,NA\n4,EU\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'NA' stands for none by dataset\.missing"):
        opened(tmp_path, "c.csv", target="kind")


def test_problems_of_all_columns_are_reported_at_once_or_skipped(tmp_path: Path) -> None:
    rows = [f"{n},{n * 2},a,{n}.5" for n in range(40)]
    rows[7:20] = [f"x,{n},a,1.5" for n in range(13)]
    rows[30] = "1,bad,b,1.5"
    (tmp_path / "c.csv").write_text("\n".join(["u,v,kind,price", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as told:
        opened(tmp_path, "c.csv", numeric_columns=["u", "v"])
    assert any("c.csv:32: column 'v': 'bad' is not a number; dataset.broken=skip" in line for line in told.value.lines)
    assert told.value.lines[-1].endswith("9 more bad rows; by column: u 13, v 1")
    data = opened(tmp_path, "c.csv", numeric_columns=["u", "v"], broken="skip")
    assert sum(len(targets) for _, targets in data.splits.values()) == 26
    assert any("14 bad rows skipped" in note for note in data.notes)


def test_missing_values_are_counted_with_what_stands_for_them(tmp_path: Path) -> None:
    rows = ["age,city,since,kind"]
    for n in range(60):
        since = "" if n < 2 else f"2024-{1 + n % 12:02d}-{1 + n % 28:02d}"
        rows.append(
            f"{'?' if n % 20 == 3 else n * 7 % 50},{'NA' if n == 5 else 'RB'[n % 2]},{since},{'ab'[n // 2 % 2]}"
        )
    (tmp_path / "t.csv").write_text("\n".join(rows))
    notes = opened(tmp_path, "t.csv", target="kind", target_type="class").notes
    assert "values missing in 60 rows: age 3, since 2; they count as the column's mean" in notes
    assert "values missing in 60 rows: city 1; they count as a category of their own" in notes


@pytest.mark.parametrize("word", ["NaN", "null", "-"])
def test_a_usual_word_for_none_among_numbers_names_its_setting(tmp_path: Path, word: str) -> None:
    (tmp_path / "t.csv").write_text(
        "x,kind\n" + "".join(f"{word if n == 3 else n * 7 % 13},{'ab'[n % 2]}\n" for n in range(40))
    )
    settings = {"target": "kind", "target_type": "class"}
    with pytest.raises(DataError, match="add it to dataset\\.missing"):
        opened(tmp_path, "t.csv", **settings)
    notes = opened(tmp_path, "t.csv", **settings, missing=[word]).notes
    assert "values missing in 40 rows: x 1; they count as the column's mean" in notes


def test_an_index_of_pandas_is_told(tmp_path: Path) -> None:
    rows = [f"{n},{n % 7},{n}.5" for n in range(30)]
    (tmp_path / "c.csv").write_text("\n".join(["Unnamed: 0,x,price", *rows]) + "\n", encoding="utf-8")
    data = opened(tmp_path, "c.csv", roles="as_given", target_type="number")
    assert any("warning: column 'Unnamed: 0' numbers its rows" in note for note in data.notes)
    assert opened(tmp_path, "c.csv").spec["numbers"] == ["x"]


def test_a_regression_needs_one_setting(cli: Callable[..., Answer], tmp_path: Path) -> None:
    houses(tmp_path)
    words = ("dataset=table", "data_dir=.", "dataset.train=houses.csv", "dataset.target=price", "model=linear")
    words += ("epochs=1", "device=cpu", "device.threads=1")
    refused = cli(*words, cwd=tmp_path)
    assert (refused.code, "set task=regression, or dataset.target_type=class" in refused.err) == (2, True)
    made = cli(*words, "task=regression", cwd=tmp_path)
    assert made.code == 0, made.err
    assert "chosen by task=regression: loss=mse monitor=val/loss" in made.out
    assert "dataset.target_type=number: the task is about numbers" in made.out
    assert "batch_size=43: the data has only so many training samples" in made.out
    config = (made.run / "config.yaml").read_text()
    assert all(line in config for line in ("monitor: val/loss", "target_type: number", "batch_size: 43"))


@pytest.mark.parametrize(
    ("dates", "hint"),
    [
        (("31012023", "01022023", "15032023"), "%d%m%Y"),
        (("31.01", "01.02", "15.03"), "without a year"),
        (("1990.1", "1990.2", "1990.10"), "the same number"),
        (("9007199254740992", "9007199254740993", "9007199254740994"), "the same number"),
    ],
)
def test_numbers_that_are_dates_and_do_not_sort_are_refused(tmp_path: Path, dates: Sequence[str], hint: str) -> None:
    lines = [f"{n * n % 7}.5,{date},{n % 2}" for n, date in enumerate(dates * 10)]
    (tmp_path / "t.csv").write_text("\n".join(["x,when,y", *lines]), encoding="utf-8")
    with pytest.raises(DataError, match=hint):
        opened(tmp_path, "t.csv", target="y", time="when")


@pytest.mark.parametrize(
    "dates", [("20230131", "20230201", "20230315"), ("1", "2", "3"), ("199001", "199002", "199010")]
)
def test_numbers_that_sort_are_times(tmp_path: Path, dates: Sequence[str]) -> None:
    lines = [f"{n * n % 7}.5,{date},{n % 2}" for n, date in enumerate(dates * 10)]
    (tmp_path / "t.csv").write_text("\n".join(["x,when,y", *lines]), encoding="utf-8")
    assert len(opened(tmp_path, "t.csv", target="y", time="when").splits["train"][0]) == 22


def test_a_table_without_a_feature_is_refused(tmp_path: Path) -> None:
    lines = [f"some words {n},5,{n % 2}" for n in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["text,same,y", *lines]), encoding="utf-8")
    with pytest.raises(DataError, match=r"no column is left to predict 'y' from.*'text': texts.*always the same"):
        opened(tmp_path, "t.csv", target="y")


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (("1,5", "2,25", "3"), "decimal=','"),  # few of them, as categories are
        (('"1,200"', "900", '"3,400"'), "marks of thousands"),
        (("$12", "$1,300", "$7"), "signs, as '\\$12'"),
        (("12%", "7 %", "3.5%"), "signs"),
        (("10.5", "-3", "$11"), "signs, as '\\$11'"),
    ],
)
def test_numbers_in_disguise_are_no_categories(tmp_path: Path, values: Sequence[str], hint: str) -> None:
    quoted = [value if value.startswith('"') else f'"{value}"' for value in values]
    lines = [f"{quoted[n % 3]},{n % 7}.5,{n % 2}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["price,x,y", *lines]), encoding="utf-8")
    notes = " ".join(opened(tmp_path, "t.csv", target="y").notes)
    assert re.search(rf"not used: price \(numbers.*{hint}", notes), notes


def test_marks_of_thousands_are_not_advised_away_as_decimals() -> None:
    for text, decimal in (("1,234", "."), ("1,234,567.5", "."), ("1.234.567,5", ",")):
        with pytest.raises(ValueError, match="take marks of thousands out"):
            number(text, decimal)
    with pytest.raises(ValueError, match=r"not a number; dataset\.decimal=','\?$"):
        number("1,5")


def test_digits_with_leading_zeros_are_no_numbers(tmp_path: Path) -> None:
    lines = [f"{n % 9:05d},{1000 * n + 7:08d},{20000 + 37 * n},{n % 7}.5,{n % 2}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["zip,card,part,x,y", *lines]), encoding="utf-8")
    data = opened(tmp_path, "t.csv", target="y")
    assert list(data.spec["categories"]) == ["zip"]
    assert data.spec["categories"]["zip"][1] == "00001"
    assert data.spec["numbers"] == ["part", "x"]
    told = "\n".join(data.notes)
    assert "card (digits with leading zeros, as '00000007': an identifier; name it in dataset.numeric_columns" in told
    assert "column 'part': whole numbers of 5 digits each, as '20000', counts as a number; if it holds" in told
    assert opened(tmp_path, "t.csv", target="y", numeric_columns=["card"]).spec["numbers"] == ["card", "part", "x"]
    given = opened(tmp_path, "t.csv", target="y", roles="as_given")
    assert any("'zip' has leading zeros, as '00000', and counts as a number" in note for note in given.notes)
    assert opened(tmp_path, "t.csv", target="zip").properties["target_type"] == "class"
    lines = [f"{'007' if n == 5 else n * n % 97},{n % 2}" for n in range(60)]
    (tmp_path / "u.csv").write_text("\n".join(["x,y", *lines]), encoding="utf-8")
    data = opened(tmp_path, "u.csv", target="y")
    assert data.spec["numbers"] == ["x"]
    assert any("column 'x': has leading zeros, as '007', counts as a number" in note for note in data.notes)


def test_numbers_written_in_several_ways_are_counted_as_classes(tmp_path: Path) -> None:
    lines = [f"{n % 7}.5,{('007', '7', '8')[n % 3]}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *lines]), encoding="utf-8")
    notes = opened(tmp_path, "t.csv", target="y").notes
    assert "target 'y': a class, for it has 2 whole numbers written in 3 ways (dataset.target_type)" in notes
    assert "warning: these are separate classes: '007' and '7'" in notes


def test_classes_that_may_stand_for_none_are_told(tmp_path: Path) -> None:
    labels = ("yes", "no", "yes", "no", "yes", "no", "yes", "N/A", "-", "null")
    lines = [f"{n % 7}.5,{labels[n % 10]}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *lines]), encoding="utf-8")
    (line,) = [note for note in opened(tmp_path, "t.csv", target="y").notes if "missing label" in note]
    setting = "dataset.missing=['','?','NA','-','N/A','null']"
    assert line == (
        f"'-', 'N/A', 'null': classes; if this stands for a missing label, set \"{setting}\" dataset.broken=skip"
    )
    told = opened(tmp_path, "t.csv", target="y", missing=["", "?", "NA", "-", "N/A", "null"], broken="skip")
    assert told.properties["num_classes"] == 2


def test_a_text_among_the_numbers_of_a_target_makes_no_classes_of_them(tmp_path: Path) -> None:
    lines = [f"{n % 7}.5,{'N/A' if n == 9 else n * 1.5}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *lines]), encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.csv:11: column 'y': 'N/A' is not a number"):
        opened(tmp_path, "t.csv", target="y")
    data = opened(tmp_path, "t.csv", target="y", broken="skip")
    assert data.properties["target_type"] == "number"
    assert "target 'y': a number, for it has 59 different numbers, and 'N/A' (dataset.target_type)" in data.notes


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["1_234", "2_345"], "categories: x (1)"),  # which Python's float takes for 1234
        ([*map(str, range(40)), "inf"], "not used: x (numbers, of which some are not finite, as 'inf'"),
        (["01", "02", "10"], "numbers: a, x (2)"),
    ],
)
def test_what_only_looks_like_numbers_is_told(tmp_path: Path, values: Sequence[str], told: str) -> None:
    draw = random.Random(0)
    some = [value for _ in range(9) for value in values if value != "inf"] + [value for value in values for _ in "12"]
    draw.shuffle(some)
    some += ["inf"] * 99 if "inf" in values else []
    lines = ["a,x,y", *(f"{draw.random()},{value},{draw.choice('pq')}" for value in some)]
    (tmp_path / "表.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    notes = opened(tmp_path, "表.csv", target="y", ignored_columns=["没有"]).notes
    assert any(told in note for note in notes), notes
    assert "warning: dataset.ignored_columns: there is no column '没有'" in notes
