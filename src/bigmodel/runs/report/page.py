"""Assemble pages: the head, which lets nothing in from elsewhere, and the sections of one run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bigmodel.formatting import format_count
from bigmodel.runs.report.confusion import Matrix, class_names, confusion, read_matrix
from bigmodel.runs.report.curves import curves, evaluations, metric_text, time_spent
from bigmodel.runs.report.gather import RunData
from bigmodel.runs.report.html import details, escape, facts, section
from bigmodel.runs.report.style import STYLE
from bigmodel.runs.report.svg import SvgWriter

_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
_HEADING = re.compile(r'<h2 id="([^"]*)">([^<]*)</h2>')


def document(title: str, lead: str, body: str, warnings: Sequence[str] = ()) -> str:
    """Return a whole page; `title` and `warnings` are texts, `lead` and `body` are HTML."""
    links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in _HEADING.findall(body))
    said = "".join(f'<p class="note">{escape(line)}</p>' for line in warnings[:20])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title, 200)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f'<header>{lead}{said}<nav aria-label="sections">{links}</nav></header>\n'
        f"<main>\n{body}</main>\n</body></html>\n"
    )


def run_page(run: RunData, warnings: Sequence[str], writer: SvgWriter, findings: str = "") -> str:
    """Return the page of one run. `findings` are the sections that needed predictions."""
    matrix = counts(run)
    where = f"All {format_count(sum(map(sum, matrix)), 'sample')} of test" if matrix else ""
    body = [
        curves(writer, run) or section("Curves", note="Nothing has been logged or evaluated yet."),
        confusion(matrix, class_names(run.summary.get("classes"), len(matrix)), where) if matrix else "",
        findings,
        time_spent(run),
        section("Evaluations", details("every evaluation", evaluations(run))) if evaluations(run) else "",
        section("Config", details("every setting", facts(run.config_rows()))),
        section("Environment", facts(run.environment_rows())),
    ]
    return document(run.subject, _lead(run), "".join(body), warnings)


def counts(run: RunData) -> Matrix | None:
    """Return the confusion matrix that the run's test has left in its summary."""
    return read_matrix(run.table("test", "confusion"))


def _lead(run: RunData) -> str:
    """Return the title, the result in one sentence, and the figures in tiles."""
    record = run.record
    state = record.state.replace("_", " ")
    mood = "good" if record.finished else "bad" if record.state == "failed" else ""
    error = run.summary.get("error")
    failed = f'<p class="bad">{escape(error, 500)}</p>' if isinstance(error, str) and error else ""
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _tiles(run))
    return (
        f'<h1>{escape(run.subject)} <span class="state {mood}">{escape(state)}</span></h1>'
        f'<p class="lead">{escape(_sentence(run))}</p>{failed}'
        f'<p class="note">{escape(record.path.resolve())}</p><dl class="tiles">{tiles}</dl>'
    )


def _sentence(run: RunData) -> str:
    """Return what was trained on what, the result, and the best step."""
    metrics, monitor = run.record.metrics, run.record.monitor
    name = monitor.rpartition("/")[2]
    parts = [f"{run.subject}:"]
    tested = metrics.get(f"test/{name}")
    if tested is not None:
        parts.append(f"test {name} {metric_text(tested, run.spec(name))};")
    if run.best is not None:
        step, value = run.best
        parts.append(f"best {monitor} {metric_text(value, run.spec(name))} at step {step:.0f}")
        parts.append(f"of {metrics['steps']:.0f}" if "steps" in metrics else "")
    elif "step" in metrics:
        parts.append(f"after {format_count(int(metrics['step']), 'step')}")
    return " ".join(filter(None, parts))


def _tiles(run: RunData) -> list[tuple[str, str]]:
    metrics = run.record.metrics
    found = [(name, value) for name, value in metrics.items() if name.startswith("test/")]
    found = found or [(name, value) for name, value in metrics.items() if name.startswith("val/")]
    found.sort(key=lambda pair: pair[0].rpartition("/")[2] != run.record.monitor.rpartition("/")[2])
    tiles = [(name, metric_text(value, run.spec(name.rpartition("/")[2]))) for name, value in found[:6]]
    if "seconds" in metrics:
        tiles.append(("time", duration(metrics["seconds"])))
    if "samples_per_s" in metrics:
        tiles.append(("samples per second", f"{metrics['samples_per_s']:,.0f}"))
    if "step" in metrics:
        tiles.append(("steps", f"{metrics['step']:,.0f}"))
    sizes = [f"{value:,.0f} {split}" for split, value in run.record.sizes.items()]
    return [*tiles, ("samples", " · ".join(sizes))] if sizes else tiles


def duration(seconds: float) -> str:
    """Return seconds as `12.3 s`, `4 min 5 s` or `2 h 3 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
