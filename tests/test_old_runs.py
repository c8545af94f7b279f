"""Run directories that version 0.1.0 made, before modules moved and keys were added: they load, are used and go on."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bigmodel.config.instantiate import validate
from bigmodel.config.renamed import MODULES, NAMES, current_target, with_current_names
from bigmodel.config.signatures import locate
from bigmodel.runs.comparison.seed_groups import differing_keys, group_by_config
from bigmodel.runs.records import RunRecord
from conftest import Answer, records

OLD = Path(__file__).with_name("old_runs")
RUNS = {"digits": "4", "table": "12", "text": "3"}  # the last step of each
INPUTS = {"table": "rows.csv", "text": "the cat sat"}
EVALUATED = {"table": "test", "text": "val"}  # the run on the digits looked at a few batches only


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to work in, with the runs and the data they were trained on."""
    shutil.copytree(OLD, tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("name", EVALUATED)
def test_it_evaluates_as_it_did(name: str, place: Path, cli: Callable[..., Answer]) -> None:
    split = EVALUATED[name]
    answer = cli(f"run={name}", f"split={split}", "device=cpu", "format=json", cwd=place, verb="evaluate")
    assert answer.code == 0, answer.err
    known, found = json.loads((place / name / "summary.json").read_text())[split], json.loads(answer.out)
    for metric in ("loss", "accuracy", "perplexity"):
        if metric in known:
            assert found[metric] == pytest.approx(known[metric], rel=1e-4), metric


@pytest.mark.parametrize("name", RUNS)
def test_it_answers(name: str, place: Path, cli: Callable[..., Answer]) -> None:
    if name == "digits":
        from PIL import Image

        Image.new("L", (8, 8), 90).save(place / "digit.png")
    given = INPUTS.get(name, "digit.png")
    answer = cli(f"run={name}", f"input={given}", "device=cpu", "format=json", cwd=place, verb="predict")
    assert answer.code == 0, answer.err
    assert all(json.loads(line) for line in answer.out.splitlines())
    assert len(answer.out.splitlines()) == (60 if name == "table" else 1)


@pytest.mark.parametrize("name", RUNS)
def test_it_goes_on(name: str, place: Path, cli: Callable[..., Answer]) -> None:
    before = records(place / name)
    answer = cli(f"resume={name}", "epochs=3", cwd=place)
    assert answer.code == 0, answer.err
    summary = json.loads((place / name / "summary.json").read_text())
    assert summary["state"] == "done"
    assert summary["step"] == summary["steps"] > int(RUNS[name])
    kept = [record for record in before if record["split"] != "test"]
    assert [record["step"] for record in records(place / name)][: len(kept)] == [record["step"] for record in kept]
    again = (
        cli(f"run={name}", f"input={INPUTS[name]}", "device=cpu", cwd=place, verb="predict") if name in INPUTS else 0
    )
    assert not again or again.code == 0


def test_it_is_exported(place: Path, cli: Callable[..., Answer]) -> None:
    answer = cli("run=digits", "format=torch_export", "output=exported.pt2", cwd=place, verb="export")
    assert answer.code == 0, answer.err


def test_it_is_listed_and_compared_with_a_new_one(place: Path, cli: Callable[..., Answer]) -> None:
    assert cli("model=mlp", "model.hidden=[4]", "device=cpu", "epochs=2", "limit_batches=2", cwd=place).code == 0
    (new,) = place.glob("outputs/????-??-??/*")
    answer = cli("digits", str(new.relative_to(place)), "format=json", cwd=place, verb="compare")
    assert answer.code == 0, answer.err
    assert "bigmodel." not in answer.out  # the same parts under the same names
    assert "warning" not in answer.err


@pytest.mark.parametrize("name", RUNS)
def test_old_keys_and_new_ones_are_no_difference(name: str, place: Path, cli: Callable[..., Answer]) -> None:
    shutil.copytree(place / name, place / "new")
    file = place / "new" / "config.yaml"
    old = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(with_current_names(old)))
    assert yaml.safe_load(file.read_text()) != old
    answer = cli(name, "new", cwd=place, verb="compare")
    assert answer.code == 0, answer.err
    assert "the configs do not differ" in answer.out


@pytest.mark.parametrize("old", MODULES)
def test_a_module_that_moved_is_where_the_table_says(old: str) -> None:
    assert importlib.import_module(MODULES[old])
    assert MODULES[old] not in MODULES, "moved twice: give the last place"


@pytest.mark.parametrize("old", NAMES)
def test_a_target_that_was_renamed_is_found(old: str) -> None:
    assert callable(locate(current_target(old)))
    assert current_target(old).rpartition(".")[2] == NAMES[old]
    assert old.rpartition(".")[0] in MODULES, "its module is one that has moved"


@pytest.mark.parametrize("old", [name for name in NAMES if ".predicting." in name])
def test_a_checkpoint_may_name_an_old_processor(old: str) -> None:
    node = with_current_names({"kind": old, "classes": ["a"]})
    assert f"bigmodel.inference.processors.{old.split('.')[2]}." in node["kind"]
    if node["kind"].endswith("TextInputProcessor"):  # a protocol, which no checkpoint names
        return
    problems = validate({"kind": {"_target_": node["kind"]}}, "bigmodel.inference.predictor._ProcessorNode")
    assert not [line for line in problems if "_target_" in line]
    assert all(line.endswith("=...") for line in problems)  # only its arguments are missing


def test_keys_that_were_added_since_are_no_difference() -> None:
    old = {"model": "mlp", "optim.lr": 0.1}
    new = {**old, "sampler": "shuffled", "init.skip": None, "dataset.augment.random_resized_crop": 0}
    assert differing_keys([old, new]) == []
    assert differing_keys([old, new, {**new, "sampler": "balanced"}]) == ["sampler"]
    made = [
        RunRecord(Path(str(seed)), "done", {**config, "seed": seed}, {}, "val/loss", seed, {})
        for seed, config in enumerate([old, new])
    ]
    (group,) = group_by_config(made)
    assert len(group.runs) == 2
