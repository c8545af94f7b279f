"""Terminal output: a progress bar, or plain lines where stdout is no terminal, and a table at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import Any

from bigmodel.events import Evaluated, Finished, Started, Stepped, TrainLogged, Warned
from bigmodel.listeners.lines import format_event, format_metric, format_metrics
from bigmodel.metric_spec import from_summary, spec_for
from bigmodel.quoting import path_override, resume_command, shell_command, trust_override

__all__ = ["Console"]

_REFRESH_S = 0.2  # between redraws of the bar, which cost some milliseconds of a core each


class Console:
    """Listener that writes to stdout. A closed stdout silences it, and never stops the training."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bar: Any = None
        self._drawn = 0.0
        self._last_metrics = ""
        self._steps_per_epoch = 1

    def __call__(self, event: object) -> None:
        try:
            self._show(event)
        except (OSError, UnicodeEncodeError):
            self._silence()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, event: object) -> None:
        match event:
            case Stepped():
                self._redraw(event.step)
            case Started():
                print(format_event(event), flush=True)
                self._steps_per_epoch = event.steps_per_epoch
                if sys.stdout.isatty():
                    self._start_bar(event)
            case TrainLogged():
                self._last_metrics = format_metrics(event.metrics, event.specs) + f"  {event.samples_per_s:.0f}/s"
                if self._bar is None:
                    print(format_event(event), flush=True)
            case Evaluated() | Warned():
                self._print(format_event(event))
            case Finished():
                self.close()
                self._print_summary(event.summary)

    def _print(self, text: str) -> None:
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _start_bar(self, event: Started) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            auto_refresh=False,
        )
        self._bar.add_task("", total=event.steps, completed=event.step, epoch=1, metrics="")
        self._bar.start()

    def _redraw(self, step: int) -> None:
        now = monotonic()
        if self._bar is None or now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        epoch = (step - 1) // self._steps_per_epoch + 1
        bar = self._bar.task_ids[0]
        self._bar.update(bar, completed=step, epoch=epoch, metrics=self._last_metrics, refresh=True)

    def _print_summary(self, summary: Any) -> None:
        rows, specs = [], from_summary(summary)
        if "test" in summary:
            rows.append(("test", format_metrics(summary["test"], specs)))
        best = summary["best"]
        if best:
            name = str(summary["monitor"])
            epoch = best["step"] / self._steps_per_epoch
            value = format_metric(best["value"], spec_for(specs, name))
            rows.append(("best", f"{name} {value} in epoch {epoch:g}"))
        pace = ""
        if summary.get("samples_per_s"):
            busy = summary["data_s"] + summary["step_s"]
            waiting = 100 * summary["data_s"] / busy
            pace = f", {summary['samples_per_s']:.0f} samples/s, {waiting:.0f} % spent waiting for data"
        rows.append(("time", f"{summary['seconds']:.1f} s, {summary['step']} steps{pace}"))
        rows.append(("files", str(self._directory)))
        trust = summary.get("grants", ())
        packages = trust_override([name for name in trust if ":" not in name])  # others grant environment variables
        for command, arguments in (("evaluate", ""), ("predict", " input=..."), ("export", " format=onnx")):
            line = shell_command(f"bigmodel-{command}", path_override("run", self._directory), *packages)
            rows.append((command, f"{line}{arguments}"))
        rows.append(("train longer", resume_command(self._directory, trust, "epochs=N")))
        width = max(len(name) for name, _ in rows)
        print("\n".join(["", *(f"{name:>{width}}  {text}" for name, text in rows)]), flush=True)

    def _silence(self) -> None:
        self._bar = None
        sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
