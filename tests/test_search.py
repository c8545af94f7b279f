"""A search with Optuna: what it finds, that a kill changes nothing of it, what it stops early, and what it refuses."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import log10
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("optuna")

from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.config.own_yaml import read_yaml
from bigmodel.errors import ConfigError, Interrupted
from bigmodel.sweeps.search.outcome import pareto_front
from bigmodel.sweeps.search.plan import SearchPlan, make_plan, read_plan
from bigmodel.sweeps.search.space import Dimension, parse_dimension
from bigmodel.sweeps.search.study import STUDY, OptunaSearch
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobProgress
from bigmodel.sweeps.state.settings import SweepOptions
from conftest import TINY, Answer, is_quiet, records, slow_where
from forks import until
from warm import only_sweep, sweep, swept, table

OWN = """
import time
from torch import nn

class Net(nn.Module):
    def __init__(self, quality: int = 1, pause: float = 0.0) -> None:
        super().__init__()
        self.factor = {-1: float("nan")}.get(quality, float(quality > 0))
        self.pause = 0.15 if quality == 0 else pause
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    def forward(self, x):
        if self.training:
            time.sleep(self.pause)
        return self.body(x) * self.factor
"""
SEARCH = ("-m", "hydra/sweeper=optuna")
TRUST = "trust=[search_pkg]"
JOB = (
    *("hydra/sweeper=optuna", "--config-dir=mine", "model=own", TRUST, "device=cpu", "jobs=1", "listeners=[]"),
    *("limit_batches=6", "epochs=2", "save_every=1steps"),
)
SPACE = ("optim.lr=tag(log,interval(1e-3,1))", "batch_size=choice(32,64)", "hydra.sweeper.n_trials=4")


def _project(cwd: Path) -> Path:
    (cwd / "mine" / "model").mkdir(parents=True)
    (cwd / "search_pkg.py").write_text(OWN)
    (cwd / "mine" / "model" / "own.yaml").write_text("_target_: search_pkg.Net\nquality: 1\npause: 0.0\n")
    return cwd


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search of four trials that nothing happened to, and what it said."""
    cwd = _project(tmp_path_factory.mktemp("search") / "it")
    code, said = swept(*JOB, *SPACE, "model.pause=0.02", cwd=cwd)
    assert code == 0, said
    return cwd, said


@pytest.mark.slow
def test_a_search_ends_with_its_best_and_how_to_train_it_again(
    unbroken: tuple[Path, str], cli: Callable[..., Answer]
) -> None:
    import optuna

    cwd, said = unbroken
    directory, rows = only_sweep(cwd), table(said)
    assert [row[0::2][:2] for row in rows] == [[str(number), "done"] for number in range(4)]
    found = [dict(word.split("=") for word in row[1].split()) for row in rows]
    assert all(1e-3 <= float(words["optim.lr"]) <= 1 and words["batch_size"] in ("32", "64") for words in found)
    with (directory / "results.csv").open() as file:
        reached = {int(row["job"]): float(row["best"]) for row in csv.DictReader(file)}
    best = max(reached, key=lambda number: reached[number])
    assert f"best: trial {best}, val/accuracy {reached[best]:.2%}: {rows[best][1]}" in said
    (line,) = [line for line in said.splitlines() if line.startswith("to train it again: bigmodel-train ")]
    answer = cli(*shlex.split(line.partition("bigmodel-train ")[2]), "dry_run=true", cwd=cwd)
    assert answer.code == 0, answer.err
    journal = optuna.storages.journal
    storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(directory / STUDY)))
    study = optuna.load_study(study_name=None, storage=storage)
    assert (study.best_trial.number, study.best_value) == (best, reached[best])


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_nothing_had_happened(unbroken: tuple[Path, str], tmp_path: Path) -> None:
    cwd = _project(tmp_path / "it")
    process = sweep(*JOB, *SPACE, "model.pause=0.02", cwd=cwd)
    assert until(lambda: list(cwd.glob("outputs/sweeps/*/2/metrics.jsonl")), process)
    process.kill()
    process.join()
    (cwd / "mine" / "model" / "own.yaml").write_text("_target_: search_pkg.Net\nquality: 0\npause: 0.0\n")
    directory = only_sweep(cwd)
    where = f"resume={directory.relative_to(cwd)}"
    code, said = swept(where, TRUST, cwd=cwd)
    assert (code, table(said)) == (0, table(unbroken[1])), said
    for number in range(4):
        assert records(directory / str(number)) == records(only_sweep(unbroken[0]) / str(number))
    code, said = swept(where, TRUST, "hydra.sweeper.n_trials=5", cwd=cwd)
    assert (code, table(said)[:4]) == (0, table(unbroken[1])), said
    events = map(json.loads, (directory / "journal.jsonl").read_text().splitlines())
    starts = Counter(event["job"] for event in events if event["event"] == "started")
    assert {number: count for number, count in starts.items() if number != 2} == {0: 1, 1: 1, 3: 1, 4: 1}


@pytest.mark.slow
def test_what_falls_behind_is_stopped_and_what_diverges_is_no_end(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    cwd = _project(tmp_path / "it")
    options = ("hydra.sweeper.sampler=grid", "hydra.sweeper.pruner=median", "hydra.sweeper.seed=0")
    code, said = swept(*JOB, *options, "optim.lr=0.1", "model.quality=choice(1,2,3,4,5,-1,0)", cwd=cwd)
    directory = only_sweep(cwd)
    states = {row[1]: row[2].split()[0] for row in table(said)}
    expected = {f"model.quality={number}": "done" for number in range(1, 6)}
    assert states == expected | {"model.quality=-1": "failed", "model.quality=0": "pruned"}, said
    assert code == 4
    summary = json.loads((directory / "6" / "summary.json").read_text())
    assert summary["state"] == "pruned"
    assert 0 < summary["step"] < summary["steps"] == 12
    assert (directory / "6" / "checkpoints" / f"step-{summary['step']:08d}").is_dir()
    with (directory / "results.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)][6] == "pruned"
    before = (directory / "journal.jsonl").read_text()
    again = cli("-m", f"resume={directory.relative_to(cwd)}", TRUST, cwd=cwd)
    assert (again.code, table(again.out)) == (4, table(said)), again.err
    assert (directory / "journal.jsonl").read_text() == before


@pytest.mark.slow
def test_two_metrics_have_a_front_and_groups_are_searched(tmp_path: Path) -> None:
    cwd = _project(tmp_path / "it")
    options = ("hydra.sweeper.metrics=[val/accuracy,seconds]", "hydra.sweeper.n_trials=3", "jobs=2")
    code, said = swept(*JOB, *options, "optim=choice(sgd,adamw)", "optim.lr=interval(0.01,0.1)", cwd=cwd)
    assert code == 0, said
    with (only_sweep(cwd) / "results.csv").open() as file:
        found = {row["job"]: (-float(row["best"]), float(row["seconds"])) for row in csv.DictReader(file)}
    beaten = {one for one, a in found.items() for b in found.values() if a != b and b[0] <= a[0] and b[1] <= a[1]}
    shown = {line.split()[1].rstrip(",") for line in said.splitlines() if line.startswith("trial ")}
    assert shown == set(found) - beaten
    for number, words in ((row[0], row[1]) for row in table(said)):
        rule = {"sgd": "sgd.sgd", "adamw": "adam.adamw"}[words.split()[0].partition("=")[2]]
        assert f"_target_: bigmodel.optim.{rule}\n" in (only_sweep(cwd) / number / "config.yaml").read_text()


def test_a_dry_run_shows_the_space_and_makes_nothing(cli: Callable[..., Answer]) -> None:
    space = ("optim.lr=tag(log,interval(1e-4,1e-1))", "batch_size=choice(32,64)", "model.hidden=choice([16],[8,8])")
    words = ("hydra.sweeper.params={seed: 'range(0,10,3)'}", "dry_run=true")
    answer = cli(*SEARCH, *TINY[:2], *space, *words)
    assert answer.code == 0, answer.err
    head, *rows = answer.out.splitlines()
    assert head.startswith("20 trials by tpe: maximize val/accuracy")
    shown = dict(row.split(maxsplit=1) for row in rows)
    assert shown == {
        "optim.lr": "0.0001 to 0.1, logarithmic",
        "batch_size": "32, 64",
        "model.hidden": "[16], [8,8]",
        "seed": "0 to 9, in steps of 3",
    }
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named"),
    slow_where(
        [
            (["-m", "optim.lr=interval(0.1,1)"], [["optim.lr", "hydra/sweeper=optuna"]]),
            (
                [*SEARCH, "hydra.sweeper.sampler=grid", "hydra.sweeper.n_trials=0", "optim.lr=interval(0.1,1)"],
                [["n_trials", "0"], ["optim.lr", "grid", "range"]],
            ),
            ([*SEARCH, "seed=range(9,1)"], [["seed", "no value"]]),
        ],
        lambda case: len(case[1]) == 1,
    ),
)
def test_a_mistake_is_told_in_lines_and_makes_nothing(
    cli: Callable[..., Answer], words: list[str], named: list[list[str]]
) -> None:
    answer = cli(*words, *TINY)
    lines = is_quiet(answer, code=2)
    assert len(lines) == len(named), lines
    for line, names in zip(lines, named, strict=True):
        assert all(name in line for name in names), line
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.slow
def test_without_optuna_it_says_what_to_install(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = cli(*SEARCH, *TINY, "optim.lr=interval(0.1,1)")
    (line,) = is_quiet(answer, code=2)
    assert "pip install 'bigmodel-train[search]'" in line
    assert list(answer.cwd.iterdir()) == []


def _fresh(path: Path, plan: SearchPlan, *words: str) -> tuple[SweepDirectory, OptunaSearch]:
    """A search of twelve trials before its first."""
    path.mkdir()
    config = compose("train", [*TINY, *words], ConfigSource((conf_directory(),), "train"))
    plan.write(path, [config.to_template_yaml()])
    tree = SweepDirectory(path)
    tree.trials = 12
    tree.snapshot_configs([], SweepOptions(1, 1, "continue"), ())
    return tree, OptunaSearch(tree, plan)


def _ends(
    tree: SweepDirectory, search: OptunaSearch, number: int, value: float, state: str = "done", code: int = 0
) -> None:
    """What a run that ended leaves, without one."""
    tree.run_path(number).mkdir(exist_ok=True)
    summary = {"state": state, "step": 1, "seconds": 1.0, "best": {"value": value, "step": 1}}
    (tree.run_path(number) / "summary.json").write_text(json.dumps(summary))
    tree.append_journal(number, "ended", code)
    search.tell(number, tree.read_progress([number])[number])


def _plan(sampler: str, pruner: str, *space: Dimension) -> SearchPlan:
    return SearchPlan(sampler, pruner, 0, "val/accuracy", ("val/accuracy",), ("maximize",), space, (), ((),))


def test_a_search_that_was_begun_with_an_old_key_goes_on_under_the_new_one(tmp_path: Path) -> None:
    plan = _plan("random", "none", Dimension("optim.early", "float", 0.01, 1.0))
    tree, search = _fresh(tmp_path / "it", plan, "optim=muon_sgd")
    assert search.ask() == 0
    (word,) = tree.jobs[0].overrides
    (optim,) = [yaml["optim"] for yaml in map(read_yaml, tree.path.glob("jobs/0*")) if "optim" in yaml]
    assert (optim["early_params"], "early" in optim) == (float(word.partition("=")[2]), False)


@pytest.mark.parametrize(
    ("space", "options", "named"),
    [
        ([], {}, ["nothing to search"]),
        (["seed=1,2"], {"sampler": "tree"}, ["sampler", "tree", "tpe, random, grid, cmaes"]),
        (["seed=1,2"], {"sampler": "cmaes"}, ["sampler", "interval"]),
        (["seed=1,2"], {"pruner": "median", "metrics": ["val/loss", "seconds"]}, ["pruner", "val/loss, seconds"]),
        (["seed=1,2"], {"metrics": "test/loss"}, ["metrics", "val/loss"]),
        (["seed=1,2"], {"directions": ["up"]}, ["directions", "minimize"]),
        (["optim.lr=tag(log,interval(0,1))"], {}, ["optim.lr", "above 0"]),
        (["optim.lr=tag(log,range(1.0,5.0))"], {}, ["optim.lr", "interval"]),
        (["optim.lr=tag(big,interval(1,2))"], {}, ["optim.lr", "big"]),
        (["optim.lr=interval(2,1)"], {}, ["optim.lr", "lower one first"]),
    ],
)
def test_a_plan_that_cannot_be_is_refused(space: list[str], options: dict[str, Any], named: list[str]) -> None:
    usual = {"sampler": "tpe", "pruner": "none", "metrics": None, "directions": None, "seed": 0, "n_trials": None}
    parsed = OverridesParser.create().parse_overrides(space)
    with pytest.raises(ConfigError) as caught:
        make_plan(usual | options, [parse_dimension(override, False) for override in parsed], [], "val/accuracy")
    (line,) = caught.value.lines
    assert all(name in line for name in named), line


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_sampling_goes_on_where_the_directory_stands(sampler: str, tmp_path: Path) -> None:
    lr, seed = Dimension("optim.lr", "float", 0.01, 1.0, log=True), Dimension("seed", "int", 0, 5)
    plan, tried = _plan(sampler, "none", lr, seed), []
    for rebuilt_after in (None, 9):
        tree, search = _fresh(tmp_path / str(rebuilt_after), plan)
        while (number := search.ask()) is not None:
            tree.append_journal(number, "started")
            words = dict(word.split("=") for word in tree.jobs[number].overrides)
            _ends(tree, search, number, -abs(float(words["optim.lr"]) - 0.2) - int(words["seed"]))
            if number == rebuilt_after:
                search = OptunaSearch(tree, read_plan(tree.path))
        tree.lock.release()
        tried.append([entry.overrides for entry in tree.jobs.values()])
    assert tried[0] == tried[1]
    assert len(set(tried[0])) == 12


@pytest.mark.slow
def test_hyperband_stops_the_worse_ones_and_keeps_the_best(tmp_path: Path) -> None:
    tree, search = _fresh(tmp_path / "it", _plan("random", "hyperband", Dimension("optim.lr", "float", 0.01, 1.0)))
    pruned = []
    while (number := search.ask()) is not None:
        tree.append_journal(number, "started")
        tree.run_path(number).mkdir()
        for step in range(1, 10):
            with (tree.run_path(number) / "metrics.jsonl").open("a") as file:
                file.write(
                    json.dumps({"split": "val", "step": step, "epoch": step, "accuracy": step / 9 - number}) + "\n"
                )
            if search.trials_to_prune([number]):
                tree.append_journal(number, "pruned")
                pruned.append(number)
                break
        _ends(tree, search, number, step / 9 - number, *(("interrupted", 75) if number in pruned else ()))
    assert pruned
    assert 0 not in pruned
    states = tree.read_progress()
    assert {number for number, state in states.items() if state.status == "pruned"} == set(pruned)
    assert tree.num_remaining(states) == 0
    assert {tree.summary(number)["state"] for number in pruned} == {"pruned"}
    tree.lock.release()


@given(st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_the_front_is_what_nothing_beats(found: dict[int, tuple[float, float]]) -> None:
    kept = pareto_front(found, ["maximize", "minimize"])
    for trial, (gain, cost) in found.items():
        beaten = any((a, b) != (gain, cost) and a >= gain and b <= cost for a, b in found.values())
        assert (trial in kept) == (not beaten)
    assert all(found[one][0] >= found[other][0] for one, other in pairwise(kept))


def _tried(
    path: Path, plan: SearchPlan, value: Callable[[dict[str, str]], float | None], trials: int = 12
) -> list[Any]:
    """The overrides of each trial of a search without runs; `value` of them is what a trial reaches, None: it diverges.
    And what was told.
    """
    tree, search = _fresh(path, plan)
    tree.trials = trials * plan.jobs_per_trial
    told = []
    while (number := search.ask()) is not None:
        told += search.pop_remarks()
        for job in search.jobs(number):
            tree.append_journal(job, "started")
            words = dict(word.split("=") for word in tree.jobs[job].overrides)
            reached = value(words)
            _ends(tree, search, job, *((0.0, "failed", 4) if reached is None else (reached,)))
    tree.lock.release()
    return [[dict(word.split("=") for word in entry.overrides) for entry in tree.jobs.values()], told]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", pytest.param("cmaes", marks=pytest.mark.slow)])
def test_what_diverged_is_learnt_from(sampler: str, tmp_path: Path) -> None:
    plan = _plan(sampler, "none", Dimension("optim.lr", "float", 1e-2, 1e6, log=True))

    def reached(words: dict[str, str]) -> float | None:
        rate = float(words["optim.lr"])
        return None if rate > 3 else -abs(log10(rate) + 1)

    tried, _ = _tried(tmp_path / "it", plan, reached, trials=40)
    diverged = [reached(words) is None for words in tried]
    assert sum(diverged[-15:]) <= 7  # at random, 10 of 15: the share of the logarithmic scale above 3


def test_several_seeds_make_one_trial_of_their_mean(tmp_path: Path) -> None:
    plan = replace(_plan("tpe", "none", Dimension("optim.lr", "float", 0.01, 1.0)), seeds=(7, 8, 9))
    tree, search = _fresh(tmp_path / "it", plan)
    tree.trials = 6
    assert search.ask() == 0
    assert [entry.overrides[-1] for entry in tree.jobs.values()] == ["seed=7", "seed=8", "seed=9"]
    assert len({entry.overrides[0] for entry in tree.jobs.values()}) == 1
    for job, value in enumerate((0.1, 0.5)):
        tree.append_journal(job, "started")
        _ends(tree, search, job, value)
        assert search._study.trials[0].value is None
    tree.append_journal(2, "started")
    _ends(tree, search, 2, 0.9)
    assert search._study.best_value == pytest.approx(0.5)
    again = OptunaSearch(tree, read_plan(tree.path))
    assert again._study.best_value == pytest.approx(0.5)
    assert (again.ask(), [*again.jobs(1)]) == (1, [3, 4, 5])
    for job, code in ((3, 0), (4, 4), (5, 0)):
        again.tell(job, JobProgress("failed" if code else "done", code))
    assert again._study.trials[1].value == float("-inf")
    assert again.ask() is None
    tree.lock.release()


def test_no_configuration_is_tried_twice(tmp_path: Path) -> None:
    space = (
        Dimension("optim.momentum", "choice", choices=("0.9", "0.90", "0.5"), values=(0.9, 0.9, 0.5)),
        Dimension("seed", "int", 0, 2),
    )
    plan = _plan("tpe", "none", *space)
    assert (plan.num_trials(None), plan.num_trials(4)) == (6, 4)
    assert plan.describe_fewer_trials(10) == ["the space has 6 configurations: 6 trials, not n_trials=10"]
    assert plan.describe_fewer_trials(None) == ["the space has 6 configurations: 6 trials, not the usual 20"]
    assert plan.describe_fewer_trials(6) == []
    grid = _plan("grid", "none", *space)
    assert (grid.describe_fewer_trials(None), grid.describe_fewer_trials(7)) == (
        [],
        ["the grid has 6 configurations: 6 trials, not n_trials=7"],
    )
    tried, told = _tried(tmp_path / "it", plan, lambda words: float(words["seed"]), trials=6)
    assert len({(float(words["optim.momentum"]), words["seed"]) for words in tried}) == 6
    assert told
    assert all("was redrawn" in line for line in told)
    journal = (tmp_path / "it" / "journal.jsonl").read_text()
    tree = SweepDirectory(tmp_path / "it")
    rebuilt = OptunaSearch(tree, read_plan(tree.path))
    assert len(rebuilt._study.trials) == 6 + journal.count('"repeated"')
    tree.lock.release()


CHOICE = ("optim=choice(adamw,sgd)", "optim.momentum=interval(0.1,0.9)")


@pytest.mark.slow
def test_a_space_may_depend_on_a_choice(cli: Callable[..., Answer]) -> None:
    plan = cli(*SEARCH, *TINY, *CHOICE, "dry_run=true")
    assert plan.code == 0, plan.err
    assert "optim.momentum  0.1 to 0.9, only with optim=sgd" in plan.out
    typo = is_quiet(cli(*SEARCH, *TINY, CHOICE[0], "optim.momentun=interval(0,1)"), code=2)
    assert any("did you mean optim.momentum?" in line for line in typo)


@pytest.mark.slow
def test_a_search_with_seeds_and_a_choice(tmp_path: Path) -> None:
    words = (*SEARCH[1:], *TINY, *CHOICE, "seeds=2", "seed=5", "hydra.sweeper.n_trials=3", "epochs=1", "jobs=2")
    code, said = swept(*words, cwd=tmp_path / "it")
    assert code == 0, said
    assert "6 jobs, 2 seeds a trial" in said
    rows = [row[1].split() for row in table(said)]
    assert {row[0] for row in rows} == {"optim=sgd", "optim=adamw"}
    assert all(len(row) == (3 if row[0] == "optim=sgd" else 2) for row in rows)
    with (only_sweep(tmp_path / "it") / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["seed"] for row in found] == ["5", "6"] * 3
    means = [sum(float(row["best"]) for row in found[2 * trial : 2 * trial + 2]) / 2 for trial in range(3)]
    best = max(range(3), key=means.__getitem__)
    assert f"best: trial {best}, val/accuracy {means[best]:.2%} (mean of 2 seeds): optim=" in said


@pytest.mark.slow
def test_a_search_that_is_killed_before_it_is_frozen_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Answer]
) -> None:
    seen: list[list[str]] = []

    def killed(self: SearchPlan, path: Path, configs: Any) -> None:
        seen.append([place.name for place in path.parent.iterdir() if not place.name.startswith(".")])
        raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(SearchPlan, "write", killed)
    answer = cli(*SEARCH, *TINY, "optim.lr=interval(0.01,0.1)")
    assert answer.code == 75, answer.err
    assert seen == [[]]  # and a kill that leaves time for nothing leaves a hidden directory
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named"),
    slow_where(
        [
            (["hydra.sweeper.metrics=[val/acuracy]"], "hydra.sweeper.metrics: there is no 'val/acuracy'; did you mean"),
            (["hydra.sweeper.metrics=[val/auc]"], "hydra.sweeper.metrics: there is no 'val/auc'"),
            (["hydra.sweeper.metrics=[accuracy]"], "there is no 'accuracy'; write val/accuracy"),
            (["hydra.sweeper.metrics=[valid/loss]"], "there is no 'valid/loss'; did you mean val/loss?"),
            (["hydra.sweeper.metrics=[step]"], "hydra.sweeper.directions: no task declares whether low or high step"),
            (["seeds=2", "hydra.sweeper.pruner=median"], "hydra.sweeper.pruner: median stops one run"),
        ],
        lambda case: "acuracy" not in case[0][0],
    ),
    ids=str,
)
def test_what_cannot_be_sought_is_refused_before_the_first_trial(
    cli: Callable[..., Answer], words: list[str], named: str
) -> None:
    answer = cli(*SEARCH, *TINY, "optim.lr=interval(0.01,0.1)", *words)
    (line,) = is_quiet(answer, code=2)
    assert named in line
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.slow
def test_the_direction_is_the_tasks_and_what_is_hardly_meant_is_said(
    cli: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be, that is the question " * 40)
    text = (
        "dataset=text",
        f"dataset.path={tmp_path}/a.txt",
        "dataset.context=8",
        "task=language_modelling",
        "loss=null",
    )
    model = ("model=gpt", "device=cpu", "monitor=val/bits_per_byte", f"dataset.cache_dir={tmp_path}")
    answer = cli(*SEARCH, *text, *model, "optim.lr=interval(0.01,0.1)", "dry_run=true")
    assert answer.code == 0, answer.err
    assert "minimize val/bits_per_byte" in answer.out
    assert "warning" not in answer.out
    words = ("loss.label_smoothing=0,0.1", "hydra.sweeper.metrics=[val/loss]", "hydra.sweeper.directions=[maximize]")
    answer = cli(*SEARCH, *TINY[:3], *words, "dry_run=true")
    assert "warning: directions: maximize val/loss, for which its task declares the other direction" in answer.out
    assert "warning: loss.label_smoothing: its values change what val/loss measures" in answer.out
