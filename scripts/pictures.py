"""The pictures of README.md, made from one real run: a recording of its terminal and its curves.

    python scripts/pictures.py                # trains as `make train` does, in a terminal of 96 columns
    python scripts/pictures.py model=mlp ...  # or with these words

Writes docs/pictures/terminal.svg, curves-light.svg and curves-dark.svg. Needs pyte (extra `docs`) and matplotlib
(extra `plots`).
"""

from __future__ import annotations

import fcntl
import html
import itertools
import json
import os
import pty
import re
import select
import struct
import sys
import tempfile
import termios
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyte

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
COLUMNS, ROWS = 96, 26
SECONDS = 10  # that the recording takes to play, its last screen included
LAST = 4  # seconds of the last screen
MOST_FRAMES = 30
CELL_W, CELL_H, MARGIN = 8.0, 17.0, 14.0
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
BACKGROUND, FOREGROUND = "#161b22", "#d0d7de"
COLORS = {
    **{"default": FOREGROUND, "black": "#6e7681", "red": "#ff7b72", "green": "#56d364", "brown": "#e3b341"},
    **{"blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#56d4dd", "white": "#f0f6fc"},
}
INK = {"light": ("#24292f", "#d0d7de"), "dark": ("#d0d7de", "#30363d")}  # of text and grid
_STILL = ".f { animation: none !important; } LAST { visibility: visible; }"

_TICKING = re.compile("[\u2800-\u28ff]|\\d+ s\\b")

Run = tuple[str, str, bool]  # text, color, bold
Screen = tuple[tuple[Run, ...], ...]


def record(words: Sequence[str], directory: Path) -> list[Screen]:
    """Run `bigmodel-train` in a pseudoterminal; return its screens."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    prompt = f"$ bigmodel-train {' '.join(words)}".rstrip()
    stream.feed(f"{prompt}\r\n".encode())
    screens = [_screen(screen)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        os.execv(sys.executable, [sys.executable, "-m", "bigmodel", "train", *words])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    while chunk := _read(terminal):
        stream.feed(chunk)
        if not select.select([terminal], [], [], 0.02)[0]:  # what was drawn is drawn whole
            screens.append(_screen(screen))
    screens.append(_screen(screen))
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit("\n".join("".join(text for text, *_ in row) for row in screens[-1]))
    return screens


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other end has closed
        return b""


def _screen(screen: pyte.Screen) -> Screen:
    rows = []
    for number in range(ROWS):
        cells = [screen.buffer[number][column] for column in range(COLUMNS)]
        styled = ((cell.data, _color(cell.bg if cell.reverse else cell.fg), cell.bold) for cell in cells)
        runs = [
            ("".join(cell[0] for cell in group), *style) for style, group in itertools.groupby(styled, lambda c: c[1:])
        ]
        while runs and not runs[-1][0].strip():
            runs.pop()
        rows.append(tuple(runs))
    return tuple(rows)


def _color(name: str) -> str:
    return COLORS.get(name.removeprefix("bright"), f"#{name}" if len(name) == 6 else FOREGROUND)


def thinned(screens: Iterable[Screen]) -> list[Screen]:
    """At most MOST_FRAMES of the screens, with the last; those that differ in spinners and seconds alone count once."""
    changes: list[Screen] = []
    said = ""
    for screen in screens:
        text = "\n".join("".join(text for text, *_ in row) for row in screen)
        if (text := _TICKING.sub("", text)) != said:
            said = text
            changes.append(screen)
    changes[-1] = screen
    places = range(min(MOST_FRAMES, len(changes)))
    return [changes[round(place * (len(changes) - 1) / max(len(places) - 1, 1))] for place in places]


def svg(frames: Sequence[Screen]) -> str:
    """An SVG that plays the screens in a loop; where motion is not wanted, the last one."""
    used = max(number for screen in frames for number, row in enumerate(screen, 1) if row)
    width, height = COLUMNS * CELL_W + 2 * MARGIN, used * CELL_H + 2 * MARGIN
    rows: dict[tuple[Run, ...], str] = {}
    drawn = []
    starts = [number / len(frames) * (SECONDS - LAST) for number in range(len(frames))]
    for number, screen in enumerate(frames):
        uses = (
            f'<use href="#{rows.setdefault(row, f"r{len(rows)}")}" y="{MARGIN + line * CELL_H:g}"/>'
            for line, row in enumerate(screen)
            if row
        )
        drawn.append(f'<g class="f" id="f{number}">{"".join(uses)}</g>')
    style = "\n".join(_keyframes(number, starts) for number in range(len(frames)))
    defs = "\n".join(_row(row, name) for row, name in rows.items())
    still = _STILL.replace("LAST", f"#f{len(frames) - 1}")
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"
  font-family="{FONT}" font-size="13.3">
<style>
text {{ white-space: pre; }}
.f {{ visibility: hidden; }}
{style}
@media (prefers-reduced-motion: reduce) {{ {still} }}
</style>
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
<defs>
{defs}
</defs>
{"".join(drawn)}
</svg>
"""


def _keyframes(number: int, starts: Sequence[float]) -> str:
    start = 100 * starts[number] / SECONDS
    end = 100 * starts[number + 1] / SECONDS if number + 1 < len(starts) else 100.0
    stops = f"{start:.2f}% {{ visibility: visible; }}"
    if number:
        stops = f"0% {{ visibility: hidden; }} {stops}"
    if end < 100:
        stops += f" {end:.2f}% {{ visibility: hidden; }}"
    return f"#f{number} {{ animation: f{number} {SECONDS}s step-end infinite; }}\n@keyframes f{number} {{ {stops} }}"


def _row(row: Sequence[Run], name: str) -> str:
    spans, column = [], 0
    for text, color, bold in row:
        x, length = MARGIN + column * CELL_W, len(text) * CELL_W
        column += len(text)
        if text.strip():
            weight = ' font-weight="bold"' if bold else ""
            spans.append(f'<tspan x="{x:g}" textLength="{length:g}" fill="{color}"{weight}>{html.escape(text)}</tspan>')
    return f'<text id="{name}" y="{CELL_H * 0.75:g}" xml:space="preserve">{"".join(spans)}</text>'


def draw_curves(run: Path) -> Iterator[Path]:
    """Loss and accuracy over the epochs, for light and for dark pages."""
    import matplotlib
    from matplotlib.figure import Figure

    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    for theme, (ink, grid) in INK.items():
        style = {"text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": grid, "grid.color": grid}
        style |= {"xtick.color": ink, "ytick.color": ink, "svg.fonttype": "path", "svg.hashsalt": "bigmodel"}
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(9, 2.4), layout="constrained")
            for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
                _draw(axes, metric, events, summary)
            path = PICTURES / f"curves-{theme}.svg"
            figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
        yield path


def _draw(axes: Any, metric: str, events: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    for split, color in (("train", "#8b949e"), ("val", "#1f6feb")):
        points = [(event["epoch"], event[metric]) for event in events if event["split"] == split]
        axes.plot(*zip(*points, strict=True), color=color, label=split, linewidth=1.8)
    value = summary["test"][metric]
    axes.axhline(value, color="#d4732a", linestyle=":", linewidth=1.5, label=f"test {value:.4g}")
    axes.set(xlabel="epoch", title=metric)
    axes.grid(linewidth=0.6)
    axes.legend(frameon=False)


def main(words: Sequence[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        frames = thinned(record(words, Path(scratch)))
        (PICTURES / "terminal.svg").write_text(svg(frames), encoding="utf-8")
        (run,) = Path(scratch).glob("outputs/????-??-??/*")
        for path in (PICTURES / "terminal.svg", *draw_curves(run)):
            print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
