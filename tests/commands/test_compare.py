"""`bigmodel-compare`: means over seeds, what the configs differ in, and a statement no stronger than the data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, is_quiet
from made_runs import made_run, made_sweep

GOOD, BAD = [0.910, 0.914, 0.912, 0.909, 0.915], [0.905, 0.906, 0.907, 0.901, 0.908]


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Answer]:
    from conftest import call

    return lambda *words: call(*words, cwd=tmp_path, verb="compare")


@pytest.fixture
def two_sweeps(tmp_path: Path) -> tuple[str, str]:
    made_sweep(tmp_path / "good", {0.1: GOOD})
    made_sweep(tmp_path / "bad", {0.01: BAD})
    return "good", "bad"


def test_paired_seeds_give_a_mean_an_interval_and_a_verdict(compare: Callable[..., Answer], two_sweeps) -> None:
    answer = compare(*two_sweeps, "metric=val/accuracy")
    assert answer.code == 0, answer.err
    head, first, second, _, differs, lr, _, verdict = answer.out.splitlines()
    assert head.split() == ["n", "val/accuracy", "95", "%", "interval", "runs"]
    assert first.split() == ["A", "5", "0.9120", "±", "0.0025", "0.9088", "to", "0.9152", "good/0", "and", "4", "more"]
    assert second.split()[:4] == ["B", "5", "0.9054", "±"]
    assert (differs.split(), lr.split()) == (["differs", "A", "B"], ["optim.lr", "0.1", "0.01"])
    assert verdict.startswith("A is better than B: 0.9120 ± 0.0025 vs 0.9054 ± 0.0027, ")
    assert "difference 0.66 percentage points, " in verdict
    assert verdict.endswith("95 % interval 0.47 to 0.85, paired over 5 seeds, p = 0.00062")


def test_json_says_the_same_with_all_digits(compare: Callable[..., Answer], two_sweeps) -> None:
    report = json.loads(compare(*two_sweeps, "format=json").out)
    assert report["metric"] == "test/accuracy"
    assert [point["config"] for point in report["points"]] == [{"optim.lr": 0.1}, {"optim.lr": 0.01}]
    assert report["points"][0]["values"] == {str(seed): value - 0.01 for seed, value in enumerate(GOOD)}
    (found,) = report["comparisons"]
    assert found["difference"]["mean"] == pytest.approx(0.0066)
    assert found["difference"]["paired"] is True
    assert found["p"] == pytest.approx(0.000625, abs=1e-6)  # t = 9.731 with 4 degrees


def test_the_lower_loss_is_the_better(compare: Callable[..., Answer], two_sweeps) -> None:
    assert "A is better than B: 0.0880" in compare(*two_sweeps, "metric=test/loss").out


def test_single_runs_of_one_config_are_one_point(compare: Callable[..., Answer], tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for seed in range(3):
            made_run(tmp_path / f"lr{lr}-{seed}", 0.9 + 0.01 * seed, lr=lr, seed=seed + int(lr * 10), workers=seed)
    answer = compare(*sorted(path.name for path in tmp_path.iterdir()))
    assert "not paired" in answer.out
    assert "no significant difference between A and B" in answer.out
    assert "optim.lr" in answer.out
    assert "workers" not in answer.out


def test_one_run_each_says_nothing(compare: Callable[..., Answer], tmp_path: Path) -> None:
    made_run(tmp_path / "a", 0.95)
    made_run(tmp_path / "b", 0.90, model="cnn")
    answer = compare("a", "b")
    assert "A vs B: 0.9400 vs 0.8900; one run each, so no test is possible" in answer.out
    assert "better" not in answer.out
    rows = dict(line.split(maxsplit=1) for line in answer.out.splitlines() if line.startswith("model"))
    assert rows["model"].split() == ["mlp", "cnn"]
    assert rows["model.channels"].split() == ["-", "8"]


def test_more_than_two_are_held_against_the_best_with_holms_correction(compare, tmp_path: Path) -> None:
    made_sweep(tmp_path / "sweep", {0.1: BAD, 0.3: GOOD, 0.5: [0.5, 0.6, 0.7, 0.8, 0.9]})
    report = json.loads(compare("sweep", "format=json").out)
    assert [(one["best"], one["other"]) for one in report["comparisons"]] == [("B", "A"), ("B", "C")]
    alone = [one["difference"]["p"] for one in report["comparisons"]]
    assert [one["p"] for one in report["comparisons"]] == pytest.approx([2 * alone[0], alone[1]])
    assert "(Holm, 2 comparisons)" in report["comparisons"][0]["statement"]


def test_what_did_not_finish_is_left_out_and_told(compare: Callable[..., Answer], two_sweeps, tmp_path: Path) -> None:
    made_run(tmp_path / "good" / "5", 0.1, lr=0.1, seed=5, state="failed")
    made_run(tmp_path / "good" / "6", 0.99, lr=0.1, seed=4, started="2025-11-25T12:00:00+00:00")
    answer = compare(*two_sweeps)
    assert "warning: A: good/5 is failed and left out" in answer.err
    assert "warning: A: 1 run left out for a repeated seed; the newest counts" in answer.err
    assert json.loads(compare(*two_sweeps, "format=json").out)["points"][0]["values"]["4"] == pytest.approx(0.98)


def test_two_runs_of_one_config_are_two_points_that_do_not_differ(compare, tmp_path: Path) -> None:
    made_run(tmp_path / "a", 0.9)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert "the configs do not differ" in compare("a", "b").out
    (tmp_path / "b" / "environment.json").write_text(json.dumps({"git": {"commit": "0123abc"}, "device": "cpu"}))
    assert "environment.git.commit  -  0123abc" in compare("a", "b").out


def test_real_runs(compare: Callable[..., Answer], tiny_run: Answer) -> None:
    report = json.loads(compare(str(tiny_run.run), "format=json").out)
    summary = json.loads((tiny_run.run / "summary.json").read_text())
    assert report["points"][0]["mean"] == summary["test"]["accuracy"]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([], ["compare: name runs or sweeps"]),
        (["nothing", "nowhere"], ["'nothing': there is no run or sweep", "'nowhere': there is no run"]),
        (["good", "metric=val/acuracy"], ["did you mean val/accuracy?"]),
        (["good", "format=yaml"], ["format: there is no 'yaml'; choices: table, json"]),
        (["good", "--deep"], ["--deep: no such flag"]),
    ],
    ids=str,
)
def test_mistakes_are_told_in_a_line_each(compare, two_sweeps, words: list[str], lines: list[str]) -> None:
    told = is_quiet(compare(*words), code=2)
    assert len(told) == len(lines)
    assert all(expected in line for expected, line in zip(lines, told, strict=True))


def test_help_names_the_settings(cli: Callable[..., Answer]) -> None:
    assert all(word in cli("--help", verb="compare").out for word in ("bigmodel-compare RUN", "metric:", "format:"))


def _facts(run: Path, environment: dict[str, object] | None = None, **summary: object) -> None:
    """Change what a run says of itself."""
    for name, more in (("environment.json", environment or {}), ("summary.json", summary)):
        known = json.loads((run / name).read_text(encoding="utf-8"))
        (run / name).write_text(json.dumps(known | more), encoding="utf-8")


DIGITS = {"_target_": "bigmodel.datasets.images.digits.digits", "num_classes": 10}
LOSS = "bigmodel.tasks.losses.CrossEntropy"


@pytest.mark.parametrize(
    ("change", "metric", "named"),
    [
        ({"environment": {"dataset": "sha256:other"}}, "test/accuracy", "data (fingerprint)"),
        ({"splits": {"train": 9, "val": 1, "test": 70}}, "test/accuracy", "samples in test"),
        ({"dataset": DIGITS | {"val_fraction": 0.2}}, "val/accuracy", "dataset.val_fraction"),
        ({"dataset": DIGITS | {"val_fraction": 0.2}}, "test/accuracy", None),
        ({"dataset": DIGITS | {"val_fraction": 0.1, "augment": {"crop": 2}}}, "val/accuracy", None),
        ({"dataset": DIGITS | {"_target_": "bigmodel.datasets.images.mnist.mnist"}}, "test/accuracy", "dataset"),
        ({"limit_batches": 3}, "test/accuracy", "limit_batches"),
        ({"task": {"_target_": "bigmodel.tasks.ctc.CTC"}}, "test/accuracy", "task"),
        ({"loss": {"_target_": LOSS, "label_smoothing": 0.1}}, "test/loss", "loss.label_smoothing"),
        ({"loss": {"_target_": LOSS, "label_smoothing": 0.1}}, "test/accuracy", None),
        ({"ema": 0.99}, "test/loss", None),
    ],
    ids=str,
)
def test_what_is_not_one_measure_has_no_winner(compare, tmp_path: Path, change, metric: str, named: str | None) -> None:
    config = {"dataset": DIGITS | {"val_fraction": 0.1}, "loss": {"_target_": LOSS, "label_smoothing": 0.0}}
    config |= {"limit_batches": None, "task": {"_target_": "bigmodel.tasks.classification.Classification"}}
    facts = {"environment": {"dataset": "sha256:one"}, "splits": {"train": 9, "val": 1, "test": 7}}
    for place, own in (("a", {}), ("b", change)):
        keys = {key: value for key, value in own.items() if key not in facts}
        for seed, accuracy in enumerate((0.9, 0.91, 0.92)):
            reached = accuracy - (0.1 + seed / 250 if place == "b" else 0)
            run = made_run(tmp_path / place / str(seed), reached, seed=seed, **config | keys)
            _facts(run, **facts | {key: value for key, value in own.items() if key in facts})
    answer = compare("a", "b", f"metric={metric}")
    if named is None:
        assert answer.code == 0, answer.err
        assert "is better than" in answer.out
        return
    assert answer.code == 2
    assert answer.out.splitlines()[0].split()[:3] == ["not", "the", "same"]
    assert answer.out.splitlines()[1].startswith(f"{named}  ")
    assert "better" not in answer.out
    assert f"the runs differ in {named}; no winner is named" in answer.err
    assert json.loads(compare("a", "b", f"metric={metric}", "format=json").out)["comparisons"] == []
    forced = compare("a", "b", f"metric={metric}", "force=true")
    assert forced.code == 0, forced.err
    assert "A is better than B" in forced.out or "B is better than A" in forced.out
    assert f"forced: {metric} is not comparable" in forced.out


def test_seeds_on_other_data_are_no_point(compare, tmp_path: Path) -> None:
    for seed in range(4):
        run = made_run(tmp_path / "a" / str(seed), 0.9, seed=seed, lr=0.1 if seed < 2 else 0.2)
        _facts(run, {"dataset": "sha256:other" if seed == 1 else "sha256:one"})
    answer = compare("a")
    assert answer.code == 2
    assert "data (fingerprint)  sha256:one and sha256:other  sha256:one" in answer.out


def test_a_metric_that_some_runs_lack_is_not_switched(compare, tmp_path: Path) -> None:
    made_run(tmp_path / "a", 0.9)
    summary = json.loads((made_run(tmp_path / "b", 0.8, lr=0.2) / "summary.json").read_text())
    del summary["test"]
    (tmp_path / "b" / "summary.json").write_text(json.dumps(summary))
    (line,) = is_quiet(compare("a", "b"), code=2)
    assert line == "metric: b has no test/accuracy, others have; name one: metric=val/accuracy"
    assert "compared by val/accuracy, as it was after the last evaluation" in compare("b").err
    _facts(tmp_path / "b", monitor="val/loss")
    (line,) = is_quiet(compare("a", "b"), code=2)
    assert "different ones (val/accuracy in A, val/loss in B)" in line


def test_a_direction_that_nobody_declares_is_asked_for(compare, tmp_path: Path) -> None:
    for name, value in (("a", 0.9), ("b", 0.8)):
        for seed in range(3):
            run = made_run(tmp_path / name / str(seed), value, seed=seed, lr=value)
            _facts(run, val={"regret": value * (1 + seed / 100)})
    (line,) = is_quiet(compare("a", "b", "metric=val/regret"), code=2)
    assert line == (
        "metric: no run declares whether low or high val/regret is better; add direction=min or direction=max"
    )
    assert "A is better than B" in compare("a", "b", "metric=val/regret", "direction=max").out
    _facts(tmp_path / "b" / "0", metrics={"regret": {"direction": "min"}})  # one that knows is enough
    assert "B is better than A" in compare("a", "b", "metric=val/regret").out
    _facts(tmp_path / "a" / "0", metrics={"regret": {"direction": "max"}})
    assert (
        "declare different directions: max in a/0, min in b/0"
        in is_quiet(compare("a", "b", "metric=val/regret"), code=2)[0]
    )


def test_a_run_whose_config_cannot_be_read_is_left_out(compare: Callable[..., Answer], tmp_path: Path) -> None:
    for name in ("a", "b"):
        made_sweep(tmp_path / name, {0.1: GOOD})
    for run in (tmp_path / "b").glob("[0-9]*"):
        (run / "config.yaml").write_text("a: [\n")
    answer = compare("a", "b/0", "metric=val/accuracy")
    assert answer.code == 0, answer.err
    assert "b/0: left out: its config cannot be read" in answer.err
    assert "only one configuration has values" in answer.out
    assert is_quiet(compare("b/0", "b/1"), code=2)[-1] == "compare: none of these runs has a config that can be read"
