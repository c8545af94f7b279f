"""`bigmodel-report`: write one HTML page about a run, several runs or a sweep."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bigmodel.commands.arguments import parse_list, parse_options
from bigmodel.errors import ConfigError, StorageError
from bigmodel.formatting import truncate
from bigmodel.runs.report import files
from bigmodel.runtime.live_text import StatusLine

DEFAULTS = {"run": "", "output": "", "predictions": "true", "device": "auto", "data_dir": "", "trust": ""}
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")
CHOICES = {"predictions": ("true", "false")}


def run(given: Sequence[str]) -> None:
    """Write the page and print its path.

    Raises:
        ConfigError: matplotlib is not installed, an option is wrong, or a path is neither a run nor a sweep.
        StorageError: the page cannot be written.
    """
    settings, rest = parse_options(given, DEFAULTS, CHOICES)
    unknown = [word for word in rest if "=" in word and not Path(word).exists()]
    if unknown:
        raise ConfigError(*(f"{word}: no such setting; choices: {', '.join(DEFAULTS)}" for word in unknown))
    paths = [Path(name) for name in (*parse_list(settings["run"]), *rest)]
    if not paths:
        raise ConfigError("run: needs a value: run=outputs/DATE/TIME; bigmodel-runs lists what there is")
    if not _DEVICE.fullmatch(settings["device"]):
        raise ConfigError(f"device: there is no '{settings['device']}'; choices: auto, cpu, cuda, cuda:0, mps")
    output = _output_path(settings["output"], paths)
    if not files.can_draw():
        raise ConfigError("report: needs matplotlib; pip install 'bigmodel-train[plots]'")
    from bigmodel.runs.report.build import build_page  # numpy, which no mistake above needs

    warnings: list[str] = []
    with StatusLine(plain=False) as status:
        status.show("drawing the page")
        page = build_page(
            paths,
            device=settings["device"],
            data_dir=settings["data_dir"] or None,
            trust=parse_list(settings["trust"]),
            predicts=settings["predictions"] == "true",
            warnings=warnings,
        )
    for line in warnings:
        print(f"warning: {truncate(line, 300)}", file=sys.stderr)
    try:
        files.write_page(output, page)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error.strerror or error}; set output=...") from error
    print(f"{output} ({output.stat().st_size / 1e3:.0f} kB)")


def _output_path(given: str, paths: Sequence[Path]) -> Path:
    if not given:
        return (paths[0] if len(paths) == 1 else Path()) / files.NAME
    output = Path(given)
    if output.suffix != ".html" or output.is_dir():
        raise ConfigError(f"output: must be a file name that ends in .html, got '{given}'")
    return output
