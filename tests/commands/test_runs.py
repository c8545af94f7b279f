"""`bigmodel-runs`: what lies under `outputs/`, sorted and filtered; torn and hostile runs cost a warning."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.runs import lock as locks
from bigmodel.runs.comparison.tables import format_table
from bigmodel.runs.lock import RunLock
from bigmodel.runs.records import is_locked, iter_metric_events
from conftest import Answer, call, is_quiet, python
from made_runs import made_run, made_sweep


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    day = tmp_path / "outputs" / "2026-11-24"
    made_run(day / "10-00-00-aaaa", 0.95, model="cnn", started="2025-11-24T10:00:00+00:00")
    made_run(day / "11-00-00-bbbb", 0.70, lr=0.001, started="2025-11-24T11:00:00+00:00")
    made_run(day / "12-00-00-cccc", None, lr=0.5, state="failed", started="2025-11-24T12:00:00+00:00")
    made_run(day / "13-00-00-dddd", 0.80, state=None, ema=0.99, started="2025-11-24T13:00:00+00:00")
    made_sweep(tmp_path / "outputs" / "sweeps" / "2026-11-23_10-00-00-eeee", {0.2: [0.85], 0.3: [0.9]})
    return tmp_path


@pytest.fixture
def listed(outputs: Path) -> Callable[..., list[str]]:
    """The last two letters of each listed run's path, or the number of a sweep's job."""

    def names(*words: str) -> list[str]:
        answer = call(*words, "format=json", cwd=outputs, verb="runs")
        assert answer.code == 0, answer.err
        return [json.loads(line)["path"][-2:] for line in answer.out.splitlines()]

    return names


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["dd", "cc", "/0", "/1", "bb", "aa"]),
        (["sort=-age"], ["aa", "bb", "cc", "/0", "/1", "dd"]),
        (["sort=test/accuracy"], ["aa", "/1", "/0", "bb", "cc", "dd"]),
        (["sort=test/loss", "limit=2"], ["aa", "/1"]),
        (["sort=optim.lr", "limit=3"], ["bb", "aa", "dd"]),
        (["model=cnn"], ["aa"]),
        (["model!=cnn", "limit=1"], ["dd"]),
        (["state=failed"], ["cc"]),
        (["state=interrupted"], ["dd"]),
        (["optim.lr>0.2", "sort=optim.lr"], ["/1", "cc"]),
        (["optim.lr>=0.2", "optim.lr<0.5", "sort=path"], ["/0", "/1"]),
        (["filter=optim.lr<0.01 model=mlp"], ["bb"]),
        (["model.hidden=[16]", "test/accuracy>0.8", "sort=best"], ["/1", "/0"]),
        (["ema=0.990"], ["dd"]),
        (["age<1m"], []),
        (["age>30d", "limit=1"], ["dd"]),
    ],
    ids=str,
)
def test_filters_and_order(listed: Callable[..., list[str]], words: list[str], names: list[str]) -> None:
    assert listed(*words) == names


def test_the_table_has_the_highlights(outputs: Path) -> None:
    lines = call("sort=test/accuracy", "seed=0", cwd=outputs, verb="runs").out.splitlines()
    assert lines[0].split()[:7] == ["state", "model", "dataset", "optim", "optim.lr", "test/accuracy", "best"]
    assert lines[1].split()[:9] == ["done", "cnn", "digits", "sgd", "0.1", "0.9400", "0.9500", "6/6", "0"]
    assert lines[1].endswith("outputs/2026-11-24/10-00-00-aaaa")
    assert len(lines) == 7


def test_a_run_that_is_not_over_shows_how_far_it_got(outputs: Path) -> None:
    (line,) = call("state=interrupted", "format=json", cwd=outputs, verb="runs").out.splitlines()
    assert json.loads(line)["metrics"] == {"val/accuracy": 0.8, "step": 6, "best": 0.8}


def test_a_held_lock_is_a_running_run_and_stays_its_holders(outputs: Path) -> None:
    directory = outputs / "outputs" / "2026-11-24" / "10-00-00-aaaa"
    lock = RunLock(directory)
    try:
        assert is_locked(directory)
        assert "running" in call("model=cnn", cwd=outputs, verb="runs").out
    finally:
        lock.release()
    assert not is_locked(directory)
    RunLock(directory).release()


def test_a_look_does_not_turn_a_start_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunLock(tmp_path).release()  # the number in it is that of a living process: our own
    look = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr(locks.time, "sleep", lambda _: os.close(look))  # what a look takes at most
    RunLock(tmp_path).release()


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "config.yaml": ["model: [", "[1, 2]", "a: !!python/object/apply:os.system ['touch owned']", BOMB, "a: 2026-13-45"],
    "summary.json": ["{", "[]", "[" * 100_000, '{"state": "\\u001b[31m"}', '{"test": {"accuracy": 1e999}, "best": 3}'],
    "environment.json": ['{"time": "yesterday", "git": 7}', '{"time": 1e999}', "\x00"],
    "metrics.jsonl": ["torn", '{"split": "val", "step": NaN, "accuracy": ' + "9" * 5000 + "}\n[]\n{}"],
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, texts in HOSTILE.items() for i in range(len(texts))])
def test_torn_and_hostile_files_cost_a_warning_and_nothing_else(outputs: Path, name: str, number: int) -> None:
    broken = outputs / "outputs" / "2026-11-24" / "13-00-00-dddd"
    (broken / name).write_text(HOSTILE[name][number])
    answer = call("format=json", cwd=outputs, verb="runs")
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 6
    assert all(line.startswith("warning: ") and name in line for line in answer.err.splitlines())
    assert "\x1b" not in answer.err + call(cwd=outputs, verb="runs").out
    assert not (outputs / "owned").exists()
    assert call("outputs/2026-11-24/13-00-00-dddd", "metric=step", cwd=outputs, verb="compare").code in (0, 2)


def test_the_last_events_of_a_long_file_are_read(tmp_path: Path) -> None:
    filler = json.dumps({"split": "train", "loss": 1.0, "note": "x" * 60_000}) + "\n"
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.writelines([filler] * 300)  # 18 MB
        file.write('{"split": "val", "note": "' + "x" * 70_000 + '"}\n')  # longer than any line of a run
        file.write('{"split": "val", "step": 9, "accuracy": 0.5}\n')
    events = list(iter_metric_events(tmp_path))
    assert len(events) == 301
    assert events[-1] == {"split": "val", "step": 9, "accuracy": 0.5}


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "metrics.jsonl", ".lock"])
def test_a_pipe_in_place_of_a_file_does_not_block(outputs: Path, name: str) -> None:
    broken = outputs / "outputs" / "2026-11-24" / "13-00-00-dddd"
    (broken / name).unlink(missing_ok=True)
    os.mkfifo(broken / name)
    assert call(cwd=outputs, verb="runs").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optim.lrr=1"], "optim.lrr: no run has it; did you mean optim.lr?"),
        (["sort=accuracy"], "accuracy: no run has it; did you mean "),
        (["nonsense"], "nonsense: no condition; write key=value"),
        (["limit=many"], "limit: must be a number or null, not 'many'"),
        (["format=xml"], "format: there is no 'xml'; choices: table, json"),
        (["output_dir=nowhere"], "output_dir: there is no directory 'nowhere'"),
        (["-m"], "-m: no such flag"),
    ],
    ids=str,
)
def test_mistakes_are_told_in_a_line(outputs: Path, words: list[str], expected: str) -> None:
    (line,) = is_quiet(call(*words, cwd=outputs, verb="runs"), code=2)
    assert line.startswith(expected)


def test_no_runs_at_all(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    assert call("model=cnn", cwd=tmp_path, verb="runs").out == "no runs under outputs\n"


def test_a_real_run_is_listed_in_the_words_of_the_command_line(tiny_run: Answer) -> None:
    (line,) = call("format=json", "model=mlp", "dataset=digits", cwd=tiny_run.cwd, verb="runs").out.splitlines()
    run = json.loads(line)
    summary = json.loads((tiny_run.run / "summary.json").read_text())
    assert run["state"] == "done"
    assert run["metrics"]["test/accuracy"] == summary["test"]["accuracy"]
    assert run["metrics"]["best"] == summary["best"]["value"]
    assert run["config"]["device"] == "cpu"
    assert run["config"]["optim"] == "sgd"


def test_python_m_answers_without_torch(outputs: Path) -> None:
    code = (
        "import sys; sys.argv = ['bigmodel', 'runs', 'limit=1']\n"
        "from bigmodel.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy', 'hydra'} & set(sys.modules), 'heavy'"
    )
    done = python("-c", code, cwd=outputs)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


def test_a_table_fits_its_terminal() -> None:
    path = "outputs/2026-11-24/10-00-00-aaaa"
    head, rows = ["state", "lr", "path"], [["early_stopped", "0.1", path]]
    assert format_table(head, rows) == [f"{'state':13}   lr  path", f"early_stopped  0.1  {path}"]
    assert format_table(head, rows, 50, ["lr"])[1].split() == ["early_stopped", path]
    assert format_table(head, rows, 43, ["lr"])[1].split() == ["early_st…", path]
    for width in range(3, 52):
        assert max(len(line) for line in format_table(head, rows, width, ["lr"])) <= width


def test_best_is_sorted_within_what_was_monitored(outputs: Path) -> None:
    for number, loss in enumerate((0.4, 0.2)):
        run = made_run(outputs / "outputs" / "2026-11-25" / f"0{number}", loss)
        (run / "summary.json").write_text((run / "summary.json").read_text().replace("val/acc", "val/loss_acc"))
        summary = json.loads((run / "summary.json").read_text()) | {"monitor": "val/loss"}
        (run / "summary.json").write_text(json.dumps(summary))
    answer = call("sort=best", "format=json", cwd=outputs, verb="runs")
    assert "these runs monitor val/accuracy, val/loss; best is sorted separately for each" in answer.err
    best = [json.loads(line)["metrics"].get("best") for line in answer.out.splitlines()]
    assert best == [0.95, 0.9, 0.85, 0.8, 0.7, 0.2, 0.4, None]
    answer = call("sort=val/accuracy", "limit=1", "format=json", cwd=outputs, verb="runs")
    assert (answer.err, json.loads(answer.out)["metrics"]["val/accuracy"]) == ("", 0.95)


def test_a_metric_that_nobody_declares_has_no_better_end(outputs: Path) -> None:
    run = made_run(outputs / "outputs" / "2026-11-25" / "00", 0.4)
    summary = json.loads((run / "summary.json").read_text()) | {"val": {"regret": 3.0}}
    (run / "summary.json").write_text(json.dumps(summary))
    answer = call("sort=val/regret", cwd=outputs, verb="runs")
    assert "no run declares whether low or high val/regret is better; the lowest come first" in answer.err
