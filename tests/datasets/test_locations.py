"""Where paths of data start: one rule for every dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigmodel.datasets.files.locations import find_file, resolve_paths
from bigmodel.errors import DataError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    (tmp_path / "data" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_file_lies_in_data_dir_or_in_the_current_directory(here: Path) -> None:
    data = here.parent / "data"
    (data / "below" / "a.csv").write_text("x")
    (here / "b.csv").write_text("x")
    assert find_file(str(data), "a.csv", "train", None) == data / "below" / "a.csv"
    assert find_file(str(data), "b.csv", "train", None) == here / "b.csv"
    assert find_file("../data", "a.csv", "train", None).samefile(data / "below" / "a.csv")
    assert find_file(".", "b.csv", "train", None) == here / "b.csv"
    with pytest.raises(
        DataError, match=rf"no 'c\.csv' in {data} or in a folder up to two below it, nor in {here}; get"
    ):
        find_file(str(data), "c.csv", "train", "example.org")
    (here / "a.csv").write_text("y")
    with pytest.raises(
        DataError, match=r"dataset\.train: there are two, .*below/a\.csv and .*here/a\.csv; give the full"
    ):
        find_file(str(data), "a.csv", "train", None)
    assert find_file(str(data), "./a.csv", "train", None) == here / "a.csv"
    assert find_file(str(data), str(data / "below" / "a.csv"), "train", None) == data / "below" / "a.csv"


def test_a_folder_follows_the_same_rule(here: Path) -> None:
    data = here.parent / "data"
    (data / "photos").mkdir()
    assert resolve_paths({"root": "photos"}, str(data)) == {"dataset.root": f"{data}/photos"}
    (here / "own").mkdir()
    assert resolve_paths({"root": "own"}, str(data)) == {}
    assert resolve_paths({"path": "none.txt", "root": str(data), "file": None}, str(data)) == {}
    (here / "photos").mkdir()
    with pytest.raises(DataError, match=r"dataset\.root: there are two"):
        resolve_paths({"root": "photos"}, str(data))
    assert resolve_paths({"root": "./photos"}, str(data)) == {}
