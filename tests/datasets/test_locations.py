"""Where paths of data start: one rule for every dataset."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bigmodel.datasets.files.locations import find_beside_shared, find_data, find_file, resolve_paths
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
        DataError,
        match=rf"train: found no 'c\.csv' in {data}, {data}/\*, {data}/\*/\* or {here}; get it",
    ):
        find_file(str(data), "c.csv", "train", "example.org")
    (here / "a.csv").write_text("y")
    with pytest.raises(
        DataError, match=r"dataset\.train: there are two, .*below/a\.csv and .*here/a\.csv; give the full"
    ):
        find_file(str(data), "a.csv", "train", None)
    assert find_file(str(data), "./a.csv", "train", None) == here / "a.csv"
    assert find_file(str(data), str(data / "below" / "a.csv"), "train", None) == data / "below" / "a.csv"


def test_what_is_there_and_no_file_is_named(here: Path) -> None:
    os.mkfifo(here / "pipe.csv")
    (here / "link.csv").symlink_to("gone.csv")
    for name, what in (("pipe.csv", "a pipe, not a file"), ("link.csv", "a link to no file")):
        with pytest.raises(DataError, match=rf"dataset\.train: {here}/{name} is {what}$"):
            find_file("../data", name, "train", None)


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


def test_published_data_lies_in_data_dir_its_folders_or_these_below_shared(tmp_path: Path) -> None:
    places = [tmp_path / "shared/text/a.txt", tmp_path / "text/a.txt", tmp_path / "a.txt"]
    for place in places:  # each takes precedence over those before
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x")
        assert find_data(str(tmp_path), "a.txt", ["text"], advice="") == place
    said = f"dataset.data_dir: found no 'b.txt' in {tmp_path}, {tmp_path}/text or {tmp_path}/shared/text; put it there"
    with pytest.raises(DataError) as error:
        find_data(str(tmp_path), "b.txt", ["text"], advice="put it there")
    assert str(error.value) == said


def test_a_published_folder_may_be_data_dir_itself(tmp_path: Path) -> None:
    (tmp_path / "speech" / "waves").mkdir(parents=True)
    for data_dir in (tmp_path, tmp_path / "speech", tmp_path / "speech" / "waves"):
        assert find_data(data_dir, "waves", ["speech"], advice="", is_folder=True) == tmp_path / "speech" / "waves"
    with pytest.raises(DataError, match="found no 'waves'"):
        find_data(tmp_path, "waves", ["speech"], advice="")


def test_a_named_folder_is_found_where_a_file_would_be(here: Path) -> None:
    data = here.parent / "data"
    (data / "shared" / "text" / "reviews").mkdir(parents=True)
    found = find_file(str(data), "reviews", "train", None, ["text"], or_folder=True)
    assert found == data / "shared" / "text" / "reviews"
    with pytest.raises(DataError, match=rf"val: found no 'none' in {data}, {data}/text, {data}/shared/text or {here}$"):
        find_file(str(data), "none", "val", None, ["text"], or_folder=True)


def test_a_vocabulary_in_the_old_place_is_still_found(tmp_path: Path) -> None:
    (tmp_path / "shared" / "tokenizers").mkdir(parents=True)
    assert find_beside_shared(tmp_path / "tokenizers") == tmp_path / "shared" / "tokenizers"
    (tmp_path / "tokenizers").mkdir()
    assert find_beside_shared(tmp_path / "tokenizers") == tmp_path / "tokenizers"
    assert find_beside_shared(tmp_path / "none") == tmp_path / "none"
