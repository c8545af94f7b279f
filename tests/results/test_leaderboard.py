"""A sweep ends with its points, best first, and with files of all its runs; `seeds=5` is an axis of a sweep."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel.runs.comparison import plots
from bigmodel.runs.comparison.leaderboard import leaderboard
from bigmodel.runs.comparison.plots import axis_scale, file_name
from bigmodel.runs.comparison.seed_groups import differing_keys, varied_keys
from conftest import TINY, Answer, is_quiet
from made_runs import made_run, made_sweep
from warm import only_sweep, swept

PLOTS = {"over_model.png", "over_optim.lr.png", "parallel_coordinates.png", "learning_curves.png"}
QUICK = (*TINY[:-1], "epochs=1")


def rows_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_seeds_give_each_point_of_a_sweep_a_mean_and_an_interval(tmp_path: Path) -> None:
    code, said = swept(*QUICK, "optim.lr=0.1,0.01", "seeds=2", "seed=7", cwd=tmp_path)
    assert code == 0, said
    rows = rows_of(only_sweep(tmp_path))
    assert [(row["optim.lr"], row["seed"]) for row in rows] == [
        *(("0.1", "7"), ("0.1", "8"), ("0.01", "7"), ("0.01", "8")),
    ]
    lines = said.splitlines()
    end = lines.index(f"files   {only_sweep(tmp_path).relative_to(tmp_path) / 'results.csv'}")
    head, first, second = lines[end - 4 : end - 1]
    assert head.split() == ["optim.lr", "best", "val/accuracy", "95", "%", "interval", "test/accuracy", "n", "jobs"]
    values = [float(row["best"]) for row in rows if row["optim.lr"] == first.split()[1]]
    assert float(first.split()[2]) == pytest.approx(sum(values) / 2, abs=0.005)
    assert float(first.split()[2]) >= float(second.split()[2])
    assert first.split()[3] == "±"
    assert first.split()[-3:] == ["2", *(["0", "1"] if first.split()[1] == "0.1" else ["2", "3"])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        ([], ["0", "1"]),
        (["seed=7"], ["7", "8"]),
        (["experiment=own", "optim.lr=0.1,0.01"], ["40", "41"]),
    ],
    ids=str,
)
def test_seeds_go_from_the_configs_own_upward(
    cli: Callable[..., Answer], tmp_path: Path, words: list[str], seeds: list[str]
) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "own.yaml").write_text("# @package _global_\nseed: 40\n")
    answer = cli(*words, "seeds=2", "dry_run=true", "--config-dir", str(tmp_path / "own"))
    assert answer.code == 0, answer.err
    named = re.findall(r"seed=(\d+)", answer.out)
    assert named == seeds * (len(named) // 2)
    assert len(named) == (4 if "optim.lr=0.1,0.01" in words else 2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seeds=5", "-m", "seed=1,2"], "seeds: conflicts with seed=1,2; remove one of the two"),
        (["seeds=5", "-m", "seed=range(3)"], "seeds: conflicts with seed=range(3); remove one of the two"),
        (["seeds=1"], "seeds: must be a number from 2 to 1000"),
        (["seeds=1e3"], "seeds: must be a number from 2 to 1000"),
        (["seeds=1,2"], "seeds: must be a number from 2 to 1000"),
        (["seeds=" + "9" * 6000], "seeds: must be a number from 2 to 1000"),
        (["seeds=3", "resume=outputs/x"], "seeds: cannot be added to what is resumed"),
        (["seeds=3", "optim.lrr=1"], "optim.lrr: no such setting"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_seeds_that_cannot_be(cli: Callable[..., Answer], words: list[str], expected: str) -> None:
    answer = cli(*words)
    (line,) = is_quiet(answer, code=2)
    assert line.startswith(expected)
    assert list(answer.cwd.iterdir()) == []


def test_only_training_takes_seeds(cli: Callable[..., Answer]) -> None:
    assert "bigmodel-train takes it" in is_quiet(cli("seeds=3", verb="evaluate"), code=2)[0]


def test_a_dry_run_with_seeds_is_a_sweep_without_a_leaderboard(cli: Callable[..., Answer]) -> None:
    answer = cli(*QUICK, "seeds=2", "dry_run=true")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("2 jobs; nothing was started")
    assert "results.csv" not in answer.out


@pytest.mark.slow
def test_a_dry_run_tells_which_jobs_are_the_same(cli: Callable[..., Answer]) -> None:
    answer = cli("-m", "optim.lr=0.1,0.2,1e-1", "model=mlp", "dry_run=true")
    assert answer.code == 0, answer.err
    assert "job 2 is the same configuration as job 0" in answer.out + answer.err
    assert "job 1 is" not in answer.out + answer.err


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.usefixtures("no_matplotlib")
def test_points_are_in_the_order_of_validation_and_failures_at_the_end(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "sweep", {0.001: [0.7, 0.72, 0.71], 0.1: [0.90, 0.92, 0.91], 3.0: []})
    made_run(sweep / "6", None, lr=3.0, state="failed")
    lines = leaderboard(sweep).splitlines()
    assert lines[0].split()[:2] == ["optim.lr", "best"]
    assert " ".join(lines[1].split()) == "1 0.1 0.910 ± 0.010 0.885 to 0.935 0.900 ± 0.010 3 3 4 5"
    assert lines[2].split()[:2] == ["2", "0.001"]
    assert lines[3].split() == ["3", "3.0", "-", "-", "-", "0", "6", "(failed)"]
    assert lines[-2:] == [
        f"files   {sweep}/results.csv",
        "plots   need matplotlib: pip install 'bigmodel-train[plots]'",
    ]
    rows = rows_of(sweep)
    assert [row["job"] for row in rows] == list("0123456")
    assert (rows[6]["state"], rows[6]["best"], rows[0]["seconds"]) == ("failed", "", "1.5")
    assert not (sweep / "plots").exists()


@pytest.mark.usefixtures("no_matplotlib")
def test_a_loss_is_better_the_lower(tmp_path: Path) -> None:
    for number, loss in enumerate([0.3, 0.1, 0.2]):
        run = made_run(tmp_path / str(number), loss, lr=0.1 * (number + 1))
        text = (run / "summary.json").read_text().replace("val/accuracy", "val/loss")
        (run / "summary.json").write_text(text)
    lines = leaderboard(tmp_path).splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["1", "2", "0"]


def test_every_run_is_drawn_in_every_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of matplotlib; whether it is a picture, only matplotlib can tell, below."""
    drawn: dict[str, MagicMock] = {}

    class Figure:
        def __init__(self, **_: object) -> None:
            self.axes = MagicMock()

        def subplots(self) -> MagicMock:
            return self.axes

        def savefig(self, path: Path, dpi: int) -> None:
            drawn[path.name] = self.axes

    library = MagicMock()
    library.figure.Figure = Figure
    monkeypatch.setitem(sys.modules, "matplotlib", library)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", library.figure)
    sweep = made_sweep(tmp_path / "sweep", {0.001: [0.7, 0.72], 0.01: [0.90, 0.92], 3.0: [0.1]})
    made_run(sweep / "5", 0.8, model="cnn")
    assert leaderboard(sweep).endswith(f"\nplots   {sweep / 'plots'}")
    assert set(drawn) == PLOTS
    assert drawn["over_optim.lr.png"].plot.call_args.args[:2] == (
        (0.001, 0.001, 0.01, 0.01, 3.0, 0.1),
        [0.7, 0.72, 0.9, 0.92, 0.1, 0.8],
    )
    drawn["over_optim.lr.png"].set_xscale.assert_called_once_with("log")
    assert not drawn["over_model.png"].set_xscale.called
    assert drawn["over_model.png"].set_xticks.call_args.kwargs == {"labels": ["cnn", "mlp"]}
    assert drawn["parallel_coordinates.png"].plot.call_count == 6
    assert drawn["learning_curves.png"].plot.call_args_list[0].args == ([1.0, 2.0], [0.35, 0.7])
    assert drawn["learning_curves.png"].plot.call_count == 6


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_plots_are_pictures(tmp_path: Path) -> None:
    from PIL import Image

    sweep = made_sweep(tmp_path / "sweep", {0.001: [0.7, 0.72], 0.1: [0.90, 0.92], 3.0: [0.1, 0.1]})
    made_run(sweep / "6", 0.8, model="cnn")
    text = leaderboard(sweep)
    assert {path.name for path in (sweep / "plots").iterdir()} == PLOTS
    assert text.endswith(f"\nfiles   {sweep}/results.csv\nplots   {sweep}/plots")
    for name in PLOTS:
        with Image.open(sweep / "plots" / name) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 3


def test_results_that_cannot_be_written_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = made_sweep(tmp_path / "sweep", {0.1: [0.9]})
    (sweep / "results.csv").mkdir()
    text = leaderboard(sweep)
    assert "0.9000" in text
    assert "warning: the results could not be written" in text
    assert not list(sweep.glob(".tmp*"))


def test_keys_that_follow_from_another_are_no_axes() -> None:
    mlp = {"model": "mlp", "model.hidden": [16], "loss.x": 1, "task.loss.x": 1, "lr": 0.1}
    cnn = {"model": "cnn", "model.hidden": 32, "model.channels": 8, "loss.x": 2, "task.loss.x": 2, "lr": 0.1}
    assert differing_keys([mlp, cnn]) == ["model", "model.hidden", "loss.x", "model.channels"]
    assert varied_keys([mlp, cnn]) == ["model", "loss.x"]
    assert varied_keys([mlp, cnn, cnn | {"model.channels": 16}]) == ["model", "loss.x", "model.channels"]


def test_axes_are_logarithmic_from_tenfold() -> None:
    assert axis_scale([0.01, 0.1]).logarithmic
    assert not axis_scale([0.02, 0.1]).logarithmic
    assert not axis_scale([0, 1000]).logarithmic
    assert axis_scale([0.1, None, 0.1]).labels == ("0.1", "null")
    assert axis_scale([True, False]).positions == (1.0, 0.0)
    assert axis_scale([1, 100, 10_000]).normalized() == pytest.approx([0, 0.5, 1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(1e-6, 1e6), st.none(), st.text(max_size=3), st.lists(st.integers())), min_size=1))
def test_every_value_has_a_place_on_its_axis(values: list[object]) -> None:
    along = axis_scale(values)
    assert len(along.positions) == len(values)
    assert all(0 <= height <= 1 + 1e-9 for height in along.normalized())
    assert plots._ticks(along)


def test_a_key_cannot_lead_out_of_the_directory() -> None:
    assert Path(file_name("../../x/" + "y" * 300)).name == file_name("../../x/" + "y" * 300)


@pytest.mark.usefixtures("no_matplotlib")
def test_places_are_among_jobs_of_one_measure(tmp_path: Path) -> None:
    for number, (accuracy, fraction) in enumerate([(0.7, 0.1), (0.9, 0.5), (0.8, 0.1), (0.6, 0.5)]):
        dataset = {"_target_": "bigmodel.datasets.images.digits.digits", "val_fraction": fraction}
        made_run(tmp_path / str(number), accuracy, lr=0.1 * (number + 1), dataset=dataset)
    warning, _, _, *rows = leaderboard(tmp_path).splitlines()[:7]
    assert warning == "warning: the jobs differ in dataset.val_fraction, so their best values"
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("1", "2"), ("2", "0"), ("1", "1"), ("2", "3")]


@pytest.mark.usefixtures("no_matplotlib")
def test_without_a_direction_there_is_no_order(tmp_path: Path) -> None:
    for number, value in enumerate((0.3, 0.1)):
        run = made_run(tmp_path / str(number), value, lr=0.1 * (number + 1), monitor="val/regret")
        text = (run / "summary.json").read_text().replace("val/accuracy", "val/regret")
        (run / "summary.json").write_text(text)
    lines = leaderboard(tmp_path).splitlines()
    assert lines[0] == "warning: no order: no run declares whether low or high val/regret is better"
    assert [line.split()[0] for line in lines[2:4]] == ["-", "-"]
