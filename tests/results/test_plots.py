"""What stands in the plots of a sweep: read from matplotlib's own figures, as eyes would from the picture."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from bigmodel.runs.comparison import plots
from bigmodel.runs.comparison.leaderboard import leaderboard
from bigmodel.runs.comparison.lettering import Lettering, choose_fonts
from made_runs import made_run, made_sweep

Drawn = Callable[[Path], dict[str, Any]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The axes of each plot by its name, and the `text` of the leaderboard."""

    def of(sweep: Path) -> dict[str, Any]:
        figures: dict[str, Any] = {}

        def saved(figure: Figure, path: Path, dpi: int) -> None:
            figure.draw_without_rendering()
            figures[path.name] = figure.axes[0]

        monkeypatch.setattr(Figure, "savefig", saved)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            text = leaderboard(sweep)
        return figures | {"text": text}

    return of


def _legend(axes: Any) -> list[str]:
    return [text.get_text() for legend in axes.figure.legends for text in legend.get_texts()]


def _events(run: Path, values: dict[float, float]) -> None:
    events = [{"step": n, "epoch": epoch, "split": "val", "accuracy": values[epoch]} for n, epoch in enumerate(values)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_single_evaluation_is_a_dot_at_a_whole_epoch(tmp_path: Path, drawn: Drawn) -> None:
    for number in range(2):
        _events(made_run(tmp_path / str(number), 0.8, lr=0.1 + number), {2.0: 0.8 + number / 10})
    axes = drawn(tmp_path)["learning_curves.png"]
    assert [line.get_marker() for line in axes.lines] == ["o", "o"]
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_epochs_between_evaluations_are_no_ticks(tmp_path: Path, drawn: Drawn) -> None:
    _events(made_run(tmp_path / "0", 0.8), {1.25: 0.7, 2.5: 0.75, 3.75: 0.8})
    axes = drawn(tmp_path)["learning_curves.png"]
    assert all(tick == int(tick) for tick in axes.get_xticks())
    assert [line.get_marker() for line in axes.lines] == ["None"]


@pytest.mark.parametrize("searched", [True, False])
def test_trials_of_a_search_are_dots_without_a_mean(searched: bool, tmp_path: Path, drawn: Drawn) -> None:
    made_sweep(tmp_path / "it", {0.01: [0.7, 0.9], 0.02: [0.8], 0.05: [0.2]})
    if searched:
        (tmp_path / "it" / "search.json").write_text("{}")
    axes = drawn(tmp_path / "it")["over_optim.lr.png"]
    assert (axes.get_legend() is None) == searched
    assert [line.get_linestyle() for line in axes.lines][:1] == ["None"]
    assert (len(axes.lines) == 1) == searched


def test_values_that_come_once_have_no_mean(tmp_path: Path, drawn: Drawn) -> None:
    axes = drawn(made_sweep(tmp_path, {0.01: [0.7], 0.02: [0.8], 0.05: [0.2]}))["over_optim.lr.png"]
    assert axes.get_legend() is None
    assert len(axes.lines) == 1


def test_of_many_points_the_best_have_colours_and_the_failed_no_name(tmp_path: Path, drawn: Drawn) -> None:
    made_sweep(tmp_path / "it", {0.01 * n: [0.5 + n / 100] for n in range(1, 16)})
    failed = made_run(tmp_path / "it" / "15", None, lr=7.5, state="failed")
    _events(failed, {1.0: 0.1})
    axes = drawn(tmp_path / "it")["learning_curves.png"]
    names = _legend(axes)
    assert names[0] == "lr=0.15"
    assert len(names) == len(set(names)) == 12
    assert names[-2:] == ["6 others", "did not finish"]
    assert not any("7.5" in name for name in names)
    coloured = {line.get_color() for line in axes.lines if line.get_label() in names[:10]}
    assert len(coloured) == 10


def test_the_better_end_and_the_unit_stand_at_the_axis(tmp_path: Path, drawn: Drawn) -> None:
    for number, value in enumerate((0.5, 0.25)):
        run = made_run(tmp_path / str(number), value, lr=0.1 + number)
        summary = json.loads((run / "summary.json").read_text()) | {"monitor": "val/score"}
        summary["metrics"] = {"score": {"direction": "min", "unit": "s", "format": ".3f"}}
        (run / "summary.json").write_text(json.dumps(summary))
    axes = drawn(tmp_path)["over_optim.lr.png"]
    assert axes.get_ylabel() == "best val/score (s, lower is better)"


def test_letters_that_no_font_has_are_escaped_and_told_once(
    tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import font_manager

    usual = [entry for entry in font_manager.fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", usual)
    for number, name in enumerate(("猫", "狗", "é")):
        made_run(tmp_path / str(number), 0.8, note=name)
    figures = drawn(tmp_path)
    labels = [text.get_text() for text in figures["over_note.png"].get_xticklabels()]
    assert sorted(labels) == [r"\u72d7", r"\u732b", "é"]
    assert figures["text"].count("no installed font has 狗猫") == 1


def test_letters_that_a_font_has_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_fonts(["é", "плоский"]) == Lettering()
    assert Lettering().plain("猫 $x$\n") == r"猫 \$x\$\n"
    assert Lettering(missing=frozenset("猫")).plain("猫") == r"\u732b"


def test_long_values_are_told_apart_by_what_they_do_not_share() -> None:
    paths = [f"a/very/long/path/to/number{n}/of/a/file.safetensors" for n in (1, 2)]
    assert [*Lettering().values(paths).values()] == ["...1...", "...2..."]
    assert Lettering().values([0.1234567, None, [1, 2]]) == {"0.1234567": "0.1235", "null": "null", "[1,2]": "[1,2]"}


def test_values_stand_at_their_places_where_there_is_room() -> None:
    assert plots._fits_all_values(plots.axis_scale([32, 64, 128]))
    assert plots._fits_all_values(plots.axis_scale([0.001, 0.01, 0.1]))
    assert not plots._fits_all_values(plots.axis_scale([1, 1.01, 2]))
    assert not plots._fits_all_values(plots.axis_scale([*range(30)]))


@pytest.mark.parametrize("page", [1.0, 0.015])  # relative luminance of white, and of a dark page's charts
def test_every_line_is_seen_on_the_page(page: float) -> None:
    pytest.importorskip("matplotlib")
    for step in range(11):
        linear = [((value + 0.055) / 1.055) ** 2.4 for value in plots.line_color(step / 10)[:3]]
        luminance = sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        contrast = (max(luminance, page) + 0.05) / (min(luminance, page) + 0.05)
        assert contrast > 2, step


def test_a_sweep_without_any_evaluation_has_no_picture(tmp_path: Path, drawn: Drawn) -> None:
    for number in range(2):
        made_run(tmp_path / "it" / str(number), None, lr=0.1 + number, state="failed")
    found = drawn(tmp_path / "it")
    assert set(found) == {"text"}
    assert found["text"].endswith(f"files   {tmp_path / 'it'}/results.csv")


def test_values_that_differ_late_have_labels_that_differ() -> None:
    letters = Lettering(missing=frozenset("很长的名字增强方法"))
    names = [f"很长的名字增强方法{n}" for n in range(3)]
    assert letters.values(names)[names[1]] == "...1"
    apart = [*names, "x"]  # nothing is shared, and all three are cut before they differ
    assert len(set(letters.values(apart).values())) == 4
    assert letters.values([0.1, 0.2, "0.1"]) == {"0.1": "0.1", "0.2": "0.2"}


def test_an_escaped_letter_is_not_cut_in_two() -> None:
    names = ["很长的名字增强方法一", "很长的名字增强方法二", "基线"]
    labels = Lettering(missing=frozenset("".join(names))).values(names)
    assert [*labels.values()] == [r"\u5f88\u957f\u7684... (1)", r"\u5f88\u957f\u7684... (2)", r"\u57fa\u7ebf"]
    assert [*Lettering().values(["ab" + "1" * 30, "abc"]).values()] == ["ab" + "1" * 19 + "...", "abc"]


def test_what_is_plain_stays_as_it_is() -> None:
    once = Lettering().plain("$x$ and $")
    assert once == r"\$x\$ and \$"
    assert Lettering().plain(once) == once


def test_one_long_name_among_short_ones_is_turned(tmp_path: Path, drawn: Drawn) -> None:
    for number, tag in enumerate([*"abcdefghij", "twelve_words"]):
        made_run(tmp_path / str(number), 0.5 + number / 100, tag=tag)
    axes = drawn(tmp_path)["over_tag.png"]
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {30.0}
