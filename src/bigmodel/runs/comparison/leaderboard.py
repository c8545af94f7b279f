"""What a sweep found: its points by the monitored metric, as a table, `results.csv` and plots."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from bigmodel.formatting import first_line
from bigmodel.metric_spec import MetricSpec, on_test_split
from bigmodel.runs.comparison import formatting as words
from bigmodel.runs.comparison import plots
from bigmodel.runs.comparison import significance as statistics
from bigmodel.runs.comparison.measures import common_spec, comparable_groups
from bigmodel.runs.comparison.seed_groups import SeedGroup, group_by_config, shown, varied_keys
from bigmodel.runs.comparison.tables import format_table, terminal_width
from bigmodel.runs.comparison.verdicts import ranking
from bigmodel.runs.records import RunRecord, read_run, sweep_runs
from bigmodel.safe_files import replacing

CSV = "results.csv"
_MOST_ROWS = 20  # in the terminal; the file has all


def leaderboard(sweep: Path) -> str:
    """The table as text, best first; writes `results.csv` and `plots/` into the sweep's directory.

    The order is that of the monitored metric's best value; the test split decides nothing. What cannot be written is
    told in a line: the runs themselves are safe.
    """
    lines: list[str] = []
    runs = [read_run(path, lines) for path in sweep_runs(sweep, lines)]
    lines = [f"warning: {line}" for line in lines]
    if not runs:
        return "\n".join(lines)
    points = group_by_config(runs)
    keys = varied_keys([point.config for point in points])
    lines += _table(points, keys)
    return "\n".join([*lines, "", _write_files(sweep, runs, points, keys)])


def _write_files(sweep: Path, runs: Sequence[RunRecord], points: Sequence[SeedGroup], keys: Sequence[str]) -> str:
    """Write the files; a line that names them, or says why there are none."""
    try:
        _write_csv(sweep / CSV, runs, keys)
        files, note = plots.draw(
            sweep / "plots", points, keys, runs[0].monitor, _spec(runs), (sweep / "search.json").is_file()
        )
    except ImportError:
        return f"files  {CSV} in {sweep}; plots need matplotlib: pip install 'bigmodel-train[plots]'"
    except OSError as error:
        return f"warning: the results could not be written: {first_line(error)}"
    except Exception as error:  # what matplotlib makes of strange values must not hide the table
        return f"files  {CSV} in {sweep}; the plots could not be drawn: {type(error).__name__}: {first_line(error)}"
    named = ", ".join(str(path.relative_to(sweep)) for path in (sweep / CSV, *files))
    return f"files  {named} in {sweep}" + (f"\n{note}" if note else "")


def _table(points: Sequence[SeedGroup], keys: Sequence[str]) -> list[str]:
    order, notes = _ranked(points)
    monitors = {point.runs[0].monitor for point in points}
    best_of, test_of = ("best", "test")
    if len(monitors) == 1:
        best_of, test_of = f"best {(monitor := monitors.pop())}", on_test_split(monitor)
    head = ["", *keys, best_of, "95 % interval", test_of, "n", "jobs"]
    rows = []
    for place, point in order[:_MOST_ROWS]:
        best, tested = _summary(point, "best"), _summary(point, on_test_split(point.runs[0].monitor))
        settings = [shown(point.config[key]) if key in point.config else words.NO_VALUE for key in keys]
        figures = [
            words.format_mean_std(best),
            words.format_interval(best.low, best.high) if best else words.NO_VALUE,
            words.format_mean_std(tested),
        ]
        rows.append([place, *settings, *figures, str(best.n if best else 0), _jobs(point)])
    lonely = max(len(point.runs) for point in points) == 1
    drop = {"95 % interval", "n"} if lonely else set()
    kept = [i for i, name in enumerate(head) if name not in drop]
    lines = format_table(
        [head[i] for i in kept], [[row[i] for i in kept] for row in rows], terminal_width(), ("jobs", "n")
    )
    lines = [*notes, *lines]
    left = len(order) - len(rows)
    return [*lines, f"and {left} more, in {CSV}"] if left else lines


def _ranked(points: Sequence[SeedGroup]) -> tuple[list[tuple[str, SeedGroup]], list[str]]:
    """Places with their points, best first, and what is to be known of the order.

    Where the best is not one measure for all points, each group of points for which it is has places of its own.
    """
    differs, groups = comparable_groups(points, "best")
    notes: list[str] = []
    if len(groups) > 1:
        notes = [f"warning: the best values are not of one measure, as the jobs differ in {', '.join(differs)}:"]
        notes += ["         each place is among the jobs that are alike in these"]
    order: list[tuple[str, SeedGroup]] = []
    for some in groups:
        monitor = some[0].runs[0].monitor
        named = {str(number): point for number, point in enumerate(some)}
        try:
            spec = common_spec((run for point in some for run in point.runs), monitor)
        except ValueError as error:
            spec = None
            notes.append(f"warning: no order: {error}")
        if spec is None or spec.direction == "none":
            notes.append(f"warning: no order: no run declares whether low or high {monitor} is better")
            order += [(words.NO_VALUE, point) for point in some]
            continue
        best_first = ranking({name: point.values("best") for name, point in named.items()}, spec)
        best_first += [name for name in named if name not in best_first]
        order += [(str(place), named[name]) for place, name in enumerate(best_first, start=1)]
    return order, notes


def _spec(runs: Sequence[RunRecord]) -> MetricSpec | None:
    """What all runs declare of the monitored metric, if they agree."""
    try:
        return common_spec(runs, runs[0].monitor)
    except ValueError:
        return None


def _summary(point: SeedGroup, metric: str) -> statistics.Summary | None:
    values = list(point.values(metric).values())
    return statistics.summary(values) if values else None


def _jobs(point: SeedGroup) -> str:
    """The numbers of the point's runs, with the state of those that did not finish."""
    return " ".join(run.path.name + ("" if run.finished else f" ({run.state})") for run in point.runs)


def _write_csv(file: Path, runs: Sequence[RunRecord], keys: Sequence[str]) -> None:
    """A row for each run, whole or not at all."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows = [["job", *keys, "seed", "state", *metrics]]
    for run in runs:
        settings = [shown(run.config[key]) if key in run.config else "" for key in (*keys, "seed")]
        figures = [repr(run.metrics[name]) if name in run.metrics else "" for name in metrics]
        rows.append([run.path.name, *settings, run.state, *figures])
    with (
        replacing(file) as scratch,
        scratch.open("x", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        csv.writer(stream).writerows(rows)
