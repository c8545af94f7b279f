"""Terminal output: a live view of the run, or plain lines where stdout cannot draw one; at the end, what to do next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bigmodel.events import Finished, Saved, Started
from bigmodel.formatting import format_count
from bigmodel.listeners.lines import RESUME_LABEL, format_end_line, format_event, format_metric, format_metrics
from bigmodel.listeners.live_run import LiveRun
from bigmodel.metric_spec import from_summary, spec_for
from bigmodel.quoting import path_override, resume_command, shell_command, trust_override
from bigmodel.runtime.terminal import draws_in_place

__all__ = ["Console"]


class Console:
    """Listener that writes to stdout. A closed stdout silences it, and never stops the training."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._live: LiveRun | None = None
        self._steps_per_epoch = 1

    def __call__(self, event: object) -> None:
        try:
            self._show(event)
        except (OSError, UnicodeEncodeError):
            self._silence()

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.close()

    def _show(self, event: object) -> None:
        if isinstance(event, Started):
            self._steps_per_epoch = event.steps_per_epoch
            if draws_in_place():
                self._live = LiveRun(event)
                return
        if isinstance(event, Finished):
            self.close()
            self._print_summary(event.summary)
        elif self._live is not None:
            self._live(event)
        elif not isinstance(event, Saved) and (text := format_event(event)):
            print(text, flush=True)

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
        rows.append(("time", f"{summary['seconds']:.1f} s, {format_count(summary['step'], 'step')}{pace}"))
        rows.append(("files", str(self._directory)))
        trust = summary.get("grants", ())
        packages = trust_override([name for name in trust if ":" not in name])  # others grant environment variables
        for command, arguments in (("evaluate", ""), ("predict", " input=..."), ("export", " format=onnx")):
            line = shell_command(f"bigmodel-{command}", path_override("run", self._directory), *packages)
            rows.append((command, f"{line}{arguments}"))
        rows.append((RESUME_LABEL, resume_command(self._directory, trust, "epochs=N")))
        print("\n".join(["", *(format_end_line(name, text) for name, text in rows)]), flush=True)

    def _silence(self) -> None:
        sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
        self.close()
