"""A metric's direction, unit and format have one home, the task; the run writes them down, all others read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigmodel.metric_spec import STANDARD, MetricSpec, declared_specs, from_summary
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.ctc import CTC
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.tasks.regression import Regression
from conftest import TINY, Answer, is_quiet

OWN = """
from bigmodel.tasks.classification import Classification
from bigmodel.metric_spec import MetricSpec

class Regret(Classification):
    metric_specs = Classification.metric_specs | {"regret": MetricSpec("min", "points", ".3f")}

    def __init__(self, loss, num_classes: int | None):
        super().__init__(loss, num_classes)
        self.metric_names = (*self.metric_names, "regret")

    def eval_metrics(self, sums):
        found = super().eval_metrics(sums)
        return found | {"regret": 100 - 100 * found["accuracy"]}

class Silent(Regret):
    metric_specs = {"loss": MetricSpec("min")}

class Undecided(Regret):
    metric_specs = Classification.metric_specs | {"regret": MetricSpec("none")}
"""
TASKS = {"regret": "Regret", "silent": "Silent", "undecided": "Undecided"}


@pytest.fixture
def own(cli: Callable[..., Answer], tmp_path: Path) -> Callable[..., Answer]:
    """`bigmodel-train` with tasks of a package of one's own."""
    cwd = tmp_path / "here"
    (cwd / "mine" / "task").mkdir(parents=True)
    (cwd / "metric_pkg.py").write_text(OWN)
    for name, kind in TASKS.items():
        text = f"_target_: metric_pkg.{kind}\nloss: ${{loss}}\nnum_classes: ${{dataset.num_classes}}\n"
        (cwd / "mine" / "task" / f"{name}.yaml").write_text(text)
    words = ("--config-dir=mine", "trust=[metric_pkg]", *TINY)
    return lambda *more, verb="train": cli(*(words if verb == "train" else ()), *more, cwd=cwd, verb=verb)


def test_a_metric_of_ones_own_is_minimised_by_all_who_rank(own: Callable[..., Answer]) -> None:
    for lr in ("0.001", "0.3"):
        answer = own("task=regret", "monitor=val/regret", f"optim.lr={lr}", "patience=5")
        assert answer.code == 0, answer.err
    runs = [*answer.cwd.glob("outputs/*/*")]
    runs.sort(key=lambda run: "lr: 0.3\n" in (run / "config.yaml").read_text())
    found = {run: json.loads((run / "summary.json").read_text()) for run in runs}
    values = [found[run]["best"]["value"] for run in runs]
    assert values[1] < values[0]  # the higher rate
    for run in runs:
        events = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        assert found[run]["best"]["value"] == min(event["regret"] for event in events if event["split"] == "val")
        assert found[run]["metrics"]["regret"]["direction"] == "min"
        assert found[run]["splits"] == {"train": 1294, "val": 144, "test": 359}
    assert f"best  val/regret {values[1]:.3f} in epoch" in answer.out
    listed = own("sort=best", "format=json", verb="runs").out.splitlines()
    assert [json.loads(line)["metrics"]["best"] for line in listed] == sorted(values)
    report = json.loads(own(*map(str, runs), "metric=val/regret", "format=json", verb="compare").out)
    assert (report["direction"], report["comparisons"][0]["best"]) == ("min", "B")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("silent", "task: Silent: metric_specs lacks accuracy, top5, regret; declare min or max for each"),
        (
            "undecided",
            "monitor: Undecided does not declare whether low or high val/regret is better; choose another metric",
        ),
    ],
)
def test_a_metric_without_a_direction_is_not_monitored(own: Callable[..., Answer], task: str, expected: str) -> None:
    (line,) = is_quiet(own(f"task={task}", "monitor=val/regret"), code=2)
    assert line == expected


def test_a_task_declares_what_it_computes() -> None:
    loss: Any = None
    assert set(declared_specs(Classification(loss, 10))) == {"loss", "accuracy", "top5"}
    assert set(declared_specs(Classification(loss, 2))) == {"loss", "accuracy", "auc"}
    assert declared_specs(LanguageModelling(1.0))["bits_per_byte"].direction == "min"
    assert "bits_per_byte" not in declared_specs(LanguageModelling())
    assert "beam_word_error" in CTC("ab", beam=2).metric_specs
    assert "beam_word_error" not in CTC("ab").metric_specs
    assert declared_specs(Regression(loss, 1.0))["loss"].unit == ""
    assert declared_specs(Regression)["rmse_units"].direction == "min"


def test_what_a_summary_says_of_metrics_is_read_with_care() -> None:
    assert from_summary({}) is STANDARD
    assert from_summary({"metrics": 3}) == {}
    strange = [None, 3, {}, {"direction": "up"}, {"direction": "min", "format": "999999999d"}, {"direction": []}]
    strange += [{"direction": "min", "unit": "\x1b[31m"}, {"direction": "min", "format": 7}]
    assert from_summary({"metrics": {str(n): fields for n, fields in enumerate(strange)}}) == {}
    fine = {"direction": "min", "unit": "s", "format": ".3f"}
    assert from_summary({"metrics": {"a": fine, "b": {"direction": "max"}}}) == {
        "a": MetricSpec("min", "s", ".3f"),
        "b": MetricSpec("max"),
    }


@pytest.mark.parametrize("wrong", [("lower", ".4g"), ("min", "%d"), ("min", "")])
def test_a_declaration_that_is_none_is_refused(wrong: tuple[Any, str]) -> None:
    with pytest.raises(ValueError, match="a metric's"):
        MetricSpec(wrong[0], format=wrong[1])
