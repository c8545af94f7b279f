"""Tables from CSV and Parquet: roles, what is learned from which rows, and how bad rows are told."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.datasets.tables.table import table
from bigmodel.errors import ConfigError, DataError

TRAIN = ["age, job, pay", "20, cook, no", "40, ?, no", " 60 , cook, yes.", ", smith, yes"]


def written(folder: Path, lines: list[str], name: str = "people.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def opened(root: Path, **settings: Any) -> TensorDataset:
    roles = {
        "target": "pay",
        "target_type": "class",
        "categorical_columns": ["job"],
        "numeric_columns": None,
        "ignored_columns": [],
    }
    form = {"strip": " .", "missing": ["", "?"], "val_fraction": 0.0, "test_fraction": 0.0}
    return table(**{"root": str(root), "train": "people.csv"} | roles | form | settings)


def test_numbers_are_standardised_and_categories_numbered(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    written(tmp_path / "below", TRAIN)
    data = opened(tmp_path)
    inputs, targets = (part[torch.arange(4)] for part in data.splits["train"])
    deviation = (2 / 3) ** 0.5 * 20
    assert inputs[:, 0].tolist() == pytest.approx([-20 / deviation, 0, 20 / deviation, 0])  # a missing age is the mean
    assert inputs[:, 1].tolist() == [2, 1, 2, 3]  # a missing job is a job of its own
    assert (targets.tolist(), data.spec["classes"]) == ([0, 0, 1, 1], ["no", "yes"])
    assert data.properties == {
        "num_numeric": 1,
        "cardinalities": [4],
        "outputs": 2,
        "num_classes": 2,
        "target_std": None,
    }


def test_all_is_learned_on_the_training_rows(tmp_path: Path) -> None:
    written(tmp_path, TRAIN)
    alone = opened(tmp_path)
    written(tmp_path, ["|a comment", "age,job,pay", "1000,baker,no"], "later.csv")
    both = opened(tmp_path, test="later.csv", comment="|")
    assert both.spec == alone.spec | {"comment": "|"}
    inputs, _ = both.splits["test"]
    assert inputs[torch.tensor([0])][0, 1] == 0  # no training row has a baker


def test_held_out_rows_are_the_latest(tmp_path: Path) -> None:
    written(tmp_path, ["day,x,y", *(f"2026-{1 + n * 7 % 10:02d}-01,{n * 7 % 10},{n}" for n in range(10))])
    roles = {"target": "y", "target_type": "number", "categorical_columns": [], "time": "day"}
    data = opened(tmp_path, **roles, val_fraction=0.25, test_fraction=0.2)
    mean, std = data.spec["mean"][0], data.spec["std"][0]
    days = {
        name: sorted((inputs[torch.arange(len(inputs))][:, 0] * std + mean).round().int().tolist())
        for name, (inputs, _) in data.splits.items()
    }
    assert days == {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [8, 9]}
    assert (data.properties["outputs"], data.properties["num_classes"]) == (1, None)


def test_bad_rows_are_named_by_file_line_and_column(tmp_path: Path) -> None:
    file = written(tmp_path, [*TRAIN, "old,cook,no", "30,cook", "30,cook,no,more", "30,cook,?"]) / "people.csv"
    with pytest.raises(DataError) as told:
        opened(tmp_path)
    assert list(told.value.lines) == [
        f"{file}:6: column 'age': 'old' is not a number",
        f"{file}:7: column 'pay': not there: the row ends after 2",
        f"{file}:8: has 4 fields, for 3 columns",
        f"{file}:9: column 'pay': the target is missing; '?' stands for none by dataset.missing: "
        "take it out of there if it is a class; dataset.broken=skip leaves such rows out",
    ]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"train": "none.csv", "source": "example.org"}, DataError, "get it from example.org"),
        ({"categorical_columns": ["work"]}, DataError, "needs one column 'work'; the columns are: age, job, pay"),
        ({"categorical_columns": ["pay"]}, ConfigError, "'pay' has two roles"),
        ({"outputs": 3}, ConfigError, "dataset.outputs: got 3, but the data has 2; leave it null"),
    ],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    written(tmp_path, TRAIN)
    with pytest.raises(error, match=words):
        opened(tmp_path, **settings)


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "age": [20.0, 40.0, 60.0, None],
        "job": ["cook", None, "cook", "smith"],
        "pay": ["no", "no", "yes", "yes"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "people.parquet")
    written(tmp_path, TRAIN)
    assert opened(tmp_path, train="people.parquet").fingerprint == opened(tmp_path).fingerprint
