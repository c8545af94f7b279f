"""Rank a sweep's configurations by the monitored metric: a table, `results.csv` and plots."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.formatting import first_line
from bigmodel.metric_spec import MetricSpec, on_test_split
from bigmodel.runs.comparison import plots
from bigmodel.runs.comparison.formatting import NO_VALUE, format_interval, format_mean_std
from bigmodel.runs.comparison.measures import common_spec, comparable_groups
from bigmodel.runs.comparison.seed_groups import SeedGroup, format_value, group_by_config, varied_keys
from bigmodel.runs.comparison.significance import Summary, summarize
from bigmodel.runs.comparison.tables import format_table, terminal_width
from bigmodel.runs.comparison.verdicts import rank_by_mean
from bigmodel.runs.records import RunRecord, read_run, sweep_runs
from bigmodel.safe_files import replacing

CSV = "results.csv"
_MAX_ROWS = 20  # in the terminal; the CSV file has all


def leaderboard(sweep: Path) -> str:
    """Return the table as text, best first; write `results.csv` and `plots/` into the sweep's directory.

    The best value of the monitored metric decides the order; the test split decides nothing. A file that cannot be
    written costs a line of the text, not an error: the runs themselves are safe.
    """
    lines: list[str] = []
    runs = [read_run(path, lines) for path in sweep_runs(sweep, lines)]
    lines = [f"warning: {line}" for line in lines]
    if not runs:
        return "\n".join(lines)
    groups = group_by_config(runs)
    keys = varied_keys([group.config for group in groups])
    lines += _table_lines(groups, keys)
    return "\n".join([*lines, "", _write_files(sweep, runs, groups, keys)])


def _write_files(sweep: Path, runs: Sequence[RunRecord], groups: Sequence[SeedGroup], keys: Sequence[str]) -> str:
    """Write the files. Returns lines that name them, or say why there are none."""
    table = f"files   {sweep / CSV}"
    try:
        _write_csv(sweep / CSV, runs, keys)
        files, note = plots.draw(
            sweep / "plots", groups, keys, runs[0].monitor, _spec(runs), (sweep / "search.json").is_file()
        )
    except ImportError:
        return f"{table}\nplots   need matplotlib: pip install 'bigmodel-train[plots]'"
    except OSError as error:
        return f"warning: the results could not be written: {error.filename or sweep}: {error.strerror or error}"
    except Exception as error:  # matplotlib may fail on unusual values, which must not hide the table
        return f"{table}\nwarning: the plots could not be drawn: {type(error).__name__}: {first_line(error)}"
    drawn = [f"plots   {sweep / 'plots'}"] if files else []
    return "\n".join([table, *drawn, *filter(None, [note])])


def _table_lines(groups: Sequence[SeedGroup], keys: Sequence[str]) -> list[str]:
    ranking = rank_groups(groups, keys)
    lines = format_table(ranking.head, ranking.rows[:_MAX_ROWS], terminal_width(), ("jobs", "n"))
    left = len(ranking.rows) - _MAX_ROWS
    return [*ranking.notes, *lines, *([f"and {left} more, in {CSV}"] if left > 0 else ())]


@dataclass(frozen=True)
class Ranking:
    """Table of a sweep's configurations, best first. `notes` are warnings about their order."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def rank_groups(groups: Sequence[SeedGroup], keys: Sequence[str]) -> Ranking:
    """Rank configurations by the best value of the monitored metric; `keys` are shown of each."""
    order, notes = _rank(groups)
    monitors = {group.runs[0].monitor for group in groups}
    best_of, test_of = "best", "test"
    if len(monitors) == 1:
        (monitor,) = monitors
        best_of, test_of = f"best {monitor}", on_test_split(monitor)
    head = ["", *keys, best_of, "95 % interval", test_of, "n", "jobs"]
    rows = []
    for rank, group in order:
        best, tested = _summary(group, "best"), _summary(group, on_test_split(group.runs[0].monitor))
        settings = [format_value(group.config[key]) if key in group.config else NO_VALUE for key in keys]
        interval = format_interval(best.low, best.high) if best else NO_VALUE
        figures = [format_mean_std(best), interval, format_mean_std(tested)]
        rows.append([rank, *settings, *figures, str(best.n if best else 0), _job_names(group)])
    has_one_seed = max(len(group.runs) for group in groups) == 1
    dropped = {"95 % interval", "n"} if has_one_seed else set()
    kept = [i for i, name in enumerate(head) if name not in dropped]
    return Ranking([head[i] for i in kept], [[row[i] for i in kept] for row in rows], notes)


def _rank(groups: Sequence[SeedGroup]) -> tuple[list[tuple[str, SeedGroup]], list[str]]:
    """Return ranks with their groups, best first, and warnings about the order.

    Where the best values measure different things, groups are ranked only among those that are comparable.
    """
    differs, comparable = comparable_groups(groups, "best")
    notes: list[str] = []
    if len(comparable) > 1:
        notes = [f"warning: the jobs differ in {', '.join(differs)}, so their best values"]
        notes += ["         are not comparable: each rank is among the jobs that agree in these"]
    order: list[tuple[str, SeedGroup]] = []
    for some in comparable:
        monitor = some[0].runs[0].monitor
        named = {str(index): group for index, group in enumerate(some)}
        try:
            spec = common_spec((run for group in some for run in group.runs), monitor)
        except ValueError as error:
            spec = None
            notes.append(f"warning: no order: {error}")
        if spec is None or spec.direction == "none":
            notes.append(f"warning: no order: no run declares whether low or high {monitor} is better")
            order += [(NO_VALUE, group) for group in some]
            continue
        best_first = rank_by_mean({name: group.values("best") for name, group in named.items()}, spec)
        best_first += [name for name in named if name not in best_first]
        order += [(str(rank), named[name]) for rank, name in enumerate(best_first, start=1)]
    return order, notes


def _spec(runs: Sequence[RunRecord]) -> MetricSpec | None:
    """Return the declaration of the monitored metric, or None if the runs disagree."""
    try:
        return common_spec(runs, runs[0].monitor)
    except ValueError:
        return None


def _summary(group: SeedGroup, metric: str) -> Summary | None:
    values = list(group.values(metric).values())
    return summarize(values) if values else None


def _job_names(group: SeedGroup) -> str:
    """Return the numbers of the group's jobs, with the state of those that did not finish."""
    return " ".join(run.path.name + ("" if run.finished else f" ({run.state})") for run in group.runs)


def _write_csv(file: Path, runs: Sequence[RunRecord], keys: Sequence[str]) -> None:
    """Write a row for each run; the file is replaced whole or not at all."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows = [["job", *keys, "seed", "state", *metrics]]
    for run in runs:
        settings = [format_value(run.config[key]) if key in run.config else "" for key in (*keys, "seed")]
        figures = [repr(run.metrics[name]) if name in run.metrics else "" for name in metrics]
        rows.append([run.path.name, *settings, run.state, *figures])
    with (
        replacing(file) as scratch,
        scratch.open("x", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        csv.writer(stream).writerows(rows)
