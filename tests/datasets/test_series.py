"""Windows over series: each is where it should be, no split sees another's future, and bad rows are named."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.datasets.tables.series import series
from bigmodel.errors import ConfigError, DataError

ROWS = [f"2026-01-{day:02d},{day},{100 - day * day}" for day in range(1, 31)]


def opened(folder: Path, rows: list[str] = ROWS, **settings: Any) -> TensorDataset:
    (folder / "load.csv").write_text("\n".join(["day,a,b", *rows]) + "\n", encoding="utf-8")
    form = {"window": 4, "horizon": 2, "season": 2, "split": (0.5, 0.2, 0.3), "columns": None, "time": "day"}
    return series(**{"root": str(folder), "file": "load.csv"} | form | settings)


def test_windows_follow_each_other_within_their_split(tmp_path: Path) -> None:
    data = opened(tmp_path)
    days = torch.arange(1, 31)
    mean, std = data.spec["mean"][0], data.spec["std"][0]
    assert (mean, std) == (days[:15].double().mean(), pytest.approx(days[:15].double().std(correction=0)))
    first = {"train": 1, "val": 16 - 4, "test": 22 - 4}  # validation looks back into training, as it may
    assert {name: len(inputs) for name, (inputs, _) in data.splits.items()} == {"train": 10, "val": 5, "test": 8}
    for name, (inputs, targets) in data.splits.items():
        number = torch.tensor([len(inputs) - 1, 0])
        for part, begins in ((inputs[number], 0), (targets[number], 4)):
            told = (part[..., 0] * std + mean).round().int()
            expected = torch.stack([first[name] + begins + n + torch.arange(part.shape[1]) for n in number.tolist()])
            assert torch.equal(told, expected.int())


def test_later_rows_change_nothing_in_training(tmp_path: Path) -> None:
    changed = [*ROWS[:15], *(f"{row.rpartition(',')[0]},9999" for row in ROWS[15:])]
    (before, _), (after, _) = (opened(tmp_path, rows).splits["train"] for rows in (ROWS, changed))
    assert torch.equal(before[torch.arange(10)], after[torch.arange(10)])


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([*ROWS[:3], "2026-01-04,x,1", *ROWS[4:]], {}, "load.csv:5: column 'a': 'x' is not a number"),
        ([*ROWS[:3], "2026-01-04,,1", *ROWS[4:]], {}, "load.csv:5: column 'a': missing"),
        ([*ROWS[:3], ROWS[2], *ROWS[4:]], {}, "load.csv:5: column 'day': '2026-01-03' does not come after"),
        (ROWS, {"log": True}, "load.csv:11: column 'b': 0 has no logarithm"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[str], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(tmp_path, rows, **settings)


def test_a_split_must_hold_its_windows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[20, 9, 1\] rows are too few for a window of 4 \+ 2"):
        opened(tmp_path, split=(20, 9, 1))


def test_the_standard_split_of_etth1() -> None:
    from bigmodel.tasks.forecasting import repeat_season

    root = os.environ.get("BIGMODEL_DATA_DIR", "data")
    form = {"window": 96, "horizon": 96, "season": 24, "split": (8640, 2880, 2880), "columns": None, "time": "date"}
    try:
        data = series(root=root, file="ETTh1.csv", **form)
    except DataError as error:
        pytest.skip(str(error))
    assert {name: len(x) for name, (x, _) in data.splits.items()} == {"train": 8449, "val": 2785, "test": 2785}
    inputs, targets = (part[torch.arange(2785)] for part in data.splits["test"])
    error = repeat_season(inputs, 1, 96) - targets
    assert error.square().mean().item() == pytest.approx(1.295, abs=0.005)  # Zeng et al. 2023, table 2, "Repeat"
    assert error.abs().mean().item() == pytest.approx(0.713, abs=0.005)
