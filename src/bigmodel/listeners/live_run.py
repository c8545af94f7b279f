"""A run on a terminal that can draw a line anew: a table that grows above a line of progress."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from bigmodel.events import Evaluated, Phase, Started, Stepped, TrainLogged, Warned
from bigmodel.listeners.eval_table import Cell, EvalTable
from bigmodel.listeners.lines import format_event, format_metric
from bigmodel.listeners.progress import Progress
from bigmodel.metric_spec import MetricSpec
from bigmodel.runtime.live_text import LiveText, elapsed_text
from bigmodel.runtime.terminal import draws_unicode, terminal_size

_EPOCH_ROW_S = 2.0  # between the rows of epochs that nothing was evaluated in, of which a second may have hundreds
_EPOCH, _MONITORED, _TRAIN_LOSS, _STEP, _TIME, _LR = 0, 1, 2, 3, 45, 55  # ranks: which columns matter most
_OTHERS = 10  # rank of the first of the other metrics, of which four come before the time; each next one has ten more


class LiveRun:
    """Shows the events of one run from `Started` on, until it is closed."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._progress = Progress(started, draws_unicode())
        self._table = EvalTable()
        self._monitored = started.monitor.rpartition("/")[2]
        self._loss = 0.0
        self._num_losses = 0  # since the last row
        self._evaluated: Sequence[Cell] = ()  # the columns of the last evaluation
        self._specs: Mapping[str, MetricSpec] = {}
        self._epoch_end = 0
        self._last_row = 0
        self._last_row_time = -_EPOCH_ROW_S
        options: Any = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
        print(textwrap.fill(format_event(started), terminal_size()[0] - 1, **options), flush=True)
        self._line = LiveText(self._progress.line)

    def __call__(self, event: object) -> None:
        match event:
            case Stepped():
                self._add_step(event)
            case Phase():
                self._progress.set_phase(event.text)
                self._line.draw()
            case TrainLogged():
                self._progress.set_metrics(event)
            case Evaluated() if event.split == "val":
                self._specs = event.specs
                self._evaluated = [self._cell(event, name) for name in event.metrics if _is_scalar(event, name)]
                lr = "" if event.lr is None else f"{event.lr:.3g}"
                self._print_row(event.step, self._evaluated, event.best, lr)
            case Warned():
                print(format_event(event), flush=True)

    def close(self) -> None:
        """Leave the table on the screen and erase the line."""
        if self._epoch_end > self._last_row:
            self._print_epoch()
        self._line.close()

    def _add_step(self, event: Stepped) -> None:
        begins_epoch = event.step == self._epoch_end + 1 and self._epoch_end > self._last_row
        if begins_epoch and monotonic() - self._last_row_time >= _EPOCH_ROW_S:
            self._print_epoch()
        self._progress.add_step(event)
        if event.loss is not None:
            self._loss += event.loss
            self._num_losses += 1
        if event.step % self._started.steps_per_epoch == 0:
            self._epoch_end = event.step

    def _print_epoch(self) -> None:
        empty = [Cell(cell.name, "", cell.rank, cell.unit) for cell in self._evaluated]
        self._print_row(self._epoch_end, empty, best=False, lr="")

    def _print_row(self, step: int, evaluated: Sequence[Cell], best: bool, lr: str) -> None:
        epoch = step / self._started.steps_per_epoch
        spec = self._specs.get("loss")
        loss = format_metric(self._loss / self._num_losses, spec) if self._num_losses else ""
        cells = [
            Cell("epoch", f"{epoch:.0f}" if epoch == int(epoch) else f"{epoch:.2f}", _EPOCH),
            Cell("step", str(step), _STEP),
            Cell("train loss", loss, _TRAIN_LOSS, spec.unit if spec else ""),
            *evaluated,
            *([Cell("lr", lr, _LR, narrowest=8)] if evaluated else []),
            Cell("time", elapsed_text(self._progress.seconds), _TIME),
        ]
        self._loss = 0.0
        self._num_losses = 0
        self._last_row = step
        self._last_row_time = monotonic()
        print("\n".join(self._table.lines(cells, best if evaluated else None, *terminal_size())), flush=True)

    def _cell(self, event: Evaluated, name: str) -> Cell:
        spec = event.specs.get(name)
        rank = _MONITORED if name == self._monitored else _OTHERS + 10 * list(event.metrics).index(name)
        return Cell(f"val {name}", format_metric(event.metrics[name], spec), rank, spec.unit if spec else "")


def _is_scalar(event: Evaluated, name: str) -> bool:
    return isinstance(event.metrics[name], float)
