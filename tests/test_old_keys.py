"""Keys of an earlier version: saved configs and users' YAML files are read with today's; typed ones are told them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.config import Config
from bigmodel.config.location import conf_directory
from bigmodel.config.own_yaml import read_yaml
from bigmodel.config.renamed import (
    KEYS,
    MODULES,
    VALUES,
    current_key,
    current_path,
    rename,
    with_current_keys,
    with_current_names,
)
from bigmodel.config.signatures import signature, type_mismatch
from bigmodel.errors import ConfigError
from conftest import Answer

ROWS = [(target, row.place, old, new) for target, row in KEYS.items() for old, new in row.names.items()]
PLAN = ("device=cpu", "dry_run=true")
CORPUS = "".join(f"{'spam' if n % 2 else 'ham'}\tword{n % 7} and word{n % 5} are here\n" for n in range(60))


def placed(place: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """A config with this node at its place."""
    tree: dict[str, Any] = dict(node)
    for part in reversed(place.split(".")):
        tree = {part: tree}
    return tree


def node_at(tree: Any, place: str) -> Any:
    for part in place.split("."):
        tree = tree[part]
    return tree


@pytest.mark.parametrize(("target", "place", "old", "new"), ROWS)
def test_each_row_of_the_table(target: str, place: str, old: str, new: str) -> None:
    accepted = signature(target).parameters
    assert new in accepted
    assert old not in accepted
    module, _, name = target.rpartition(".")
    before = [key for key, value in MODULES.items() if value == module]
    for full in (target, *(f"{one}.{name}" for one in before)):
        saved = placed(place, {"_target_": full, old: 3, "other": None}) | {"follows": f"${{{place}.{old}}}"}
        tree, lines = rename(saved)
        assert node_at(tree, place) == {"_target_": target, new: 3, "other": None}
        assert tree["follows"] == f"${{{place}.{new}}}"
        assert lines == [f"{place}.{old} is now {place}.{new}"]
        assert rename(tree) == (tree, [])
        config = Config(OmegaConf.create(saved))
        assert config.to_dict()["follows"] == 3
        assert current_path(config.unresolved, f"{place}.{old}") == f"{place}.{new}"  # as a search's plan has it
    assert rename(placed(place, {"_target_": "mine.Own", old: 3}))[1] == []


@pytest.mark.parametrize(("target", "place", "old", "new"), ROWS)
def test_a_file_may_lay_an_old_key_over_a_choice(target: str, place: str, old: str, new: str) -> None:
    written = with_current_keys(placed(place, {old: 1}), "")
    for choice in ({new: 0}, {}):
        merged = OmegaConf.merge(placed(place, {"_target_": target, **choice}), written)
        assert node_at(with_current_names(OmegaConf.to_container(merged)), place) == {"_target_": target, new: 1}
        typed = OmegaConf.merge(merged, placed(place, {new: 2}))  # what is laid over it wins
        assert node_at(with_current_names(OmegaConf.to_container(typed)), place) == {"_target_": target, new: 2}
    own = OmegaConf.merge(placed(place, {"_target_": "mine.Own", old: 0}), written)
    assert node_at(with_current_names(OmegaConf.to_container(own)), place) == {"_target_": "mine.Own", old: 1}


def test_values_were_renamed_too() -> None:
    for (target, key), values in VALUES.items():
        annotation = signature(target).parameters[key].annotation
        for old, new in values.items():
            assert type_mismatch(new, annotation) is None
            assert type_mismatch(old, annotation) is not None
            tree, lines = rename({"dataset": {"_target_": target, key: old}})
            assert tree["dataset"][key] == new
            assert lines == [f"dataset.{key}: {old} is now {new}"]


def test_no_file_of_ours_has_an_old_key() -> None:
    for file in conf_directory().glob("**/*.yaml"):
        text = file.read_text(encoding="utf-8")
        tree: Any = OmegaConf.to_container(read_yaml(file), resolve=False)
        place = "" if "@package _global_" in text or file.parent == conf_directory() else file.parent.name
        assert with_current_keys(tree, place) == tree, file
        assert rename(tree) == (tree, []), file
        for group, key in re.findall(r"\$\{(\w+)\.(\w+)\}", text):
            assert all(key not in row.names for row in KEYS.values() if row.place == group), file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a text to train on and YAML files of one's own that have old keys."""
    (tmp_path / "texts.tsv").write_text(CORPUS)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "task").mkdir()
    (tmp_path / "mine" / "experiment" / "old.yaml").write_text(
        "# @package _global_\n# Of an earlier version.\n"
        "defaults:\n  - override /dataset: labelled_text\n  - override /task: masked_language_modelling\n"
        "  - override /model: masked_bert\n"
        "loss: null\nmonitor: val/loss\n"
        "dataset: {data_dir: ., train: texts.tsv, columns: [label, text], predicts: hidden_token, context: 8}\n"
        "task: {share: 0.25}\n"
    )
    (tmp_path / "mine" / "task" / "own.yaml").write_text("defaults: [permuted_language_modelling]\nshare: 0.5\n")
    return tmp_path


SAID = "task.share is now task.mask_probability"
REFUSED = "task.share: no such setting; it is task.mask_probability now"
OLD = ("--config-dir=mine", "experiment=old", *PLAN)


def test_a_file_with_old_keys_is_read_and_says_so(place: Path) -> None:
    source = ConfigSource((place / "mine", conf_directory()), "train")
    config = compose("train", ["experiment=old"], source)
    assert config.values["task"]["mask_probability"] == 0.25
    renamed = (SAID, "dataset.predicts: hidden_token is now masked_token")
    assert config.notes == (*renamed, "chosen by dataset=labelled_text: optim=adamw")
    assert compose("train", ["experiment=old", "task.mask_probability=0.4"], source).values["task"] == {
        **config.values["task"],
        "mask_probability": 0.4,
    }
    other = compose("train", ["experiment=old", "task=own", "model=xlnet"], source)
    assert other.values["task"]["predict_fraction"] == 0.25
    assert other.notes[0] == "task.share is now task.predict_fraction"


def test_a_typed_old_key_is_refused_with_the_new_one(place: Path, cli: Callable[..., Answer]) -> None:
    source = ConfigSource((place / "mine", conf_directory()), "train")
    with pytest.raises(ConfigError, match=REFUSED):
        compose("train", ["experiment=old", "task.share=0.4"], source)
    bare = cli("init.lora.train=head", cwd=place)
    assert (bare.code, bare.err) == (2, "error: init.lora.train: no such setting; it is init.lora.also_train now\n")


@pytest.mark.slow
def test_so_it_is_in_the_plan_and_in_a_sweep(place: Path, cli: Callable[..., Answer]) -> None:
    planned = cli(*OLD, cwd=place)
    assert (planned.code, SAID in planned.out) == (0, True), planned.err
    swept = cli(*OLD, "-m", "optim.lr=0.1,0.2", cwd=place)
    assert (swept.code, swept.out.count(SAID)) == (0, 1), swept.err
    for words in (("task.share=0.1,0.2",), ("task.share=0.1,0.2", "optim.lr=1,2")):
        answer = cli(*OLD, "-m", *words, cwd=place)
        assert answer.code == 2
        assert REFUSED in answer.err


def test_a_key_of_a_users_own_target_stays() -> None:
    assert current_key("mine.data", "numbers") == "numbers"
    assert current_key(None, "share") == "share"
