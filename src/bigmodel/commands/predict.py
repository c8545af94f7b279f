"""`bigmodel-predict`: the classes of images, by a trained run."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bigmodel.config import Config
from bigmodel.datasets.files import SUFFIXES
from bigmodel.device import Device
from bigmodel.errors import DataError
from bigmodel.inference import Predictor, Ranking, load
from bigmodel.settings import Predict
from bigmodel.signals import Stop
from bigmodel.targets import build


def run(config: Config, stop: Stop | None = None) -> None:
    """Predict and print, a line for each image; a bad image is reported and the others are still done.

    Raises:
        ConfigError: no such run.
        DataError: nothing matches the input, or images could not be read.
        StorageError: no checkpoint verifies.
    """
    settings = Predict(**config.tree)
    device: Device = build("device", settings.device, config.trust)
    device.prepare()
    paths = images(settings.input)
    predictor = load(settings.run, device, config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    top = min(settings.top, len(predictor.classes))
    table = _Table(paths, predictor.classes, top)
    if settings.format == "table":
        print(table.head(), flush=True)
    done = 0
    for path, ranking in _rankings(predictor, paths, settings.batch_size):
        print(_json(path, ranking[:top]) if settings.format == "json" else table.row(path, ranking[:top]), flush=True)
        done += 1
    if done < len(paths):
        raise DataError(f"{len(paths) - done} of {len(paths)} images could not be read; the lines above name them")


def images(given: str) -> list[str]:
    """The image files that `input` means: one file, a folder with all below it, or a pattern.

    Raises:
        DataError: there are none.
    """
    path = Path(given)
    if path.is_dir():
        found = [
            str(file)
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
        ]
        if not found:
            raise DataError(
                f"input: there are no images in the folder '{given}'; looked for {', '.join(sorted(SUFFIXES))}"
            )
        return sorted(found)
    if path.exists():
        return [given]
    found = [file for file in glob.glob(given, recursive=True) if Path(file).is_file()]
    if not found:
        raise DataError(f"input: there is no image, folder or match for '{given}'")
    return sorted(found)


def _rankings(predictor: Predictor, paths: Sequence[str], batch_size: int) -> Iterator[tuple[str, Ranking]]:
    for start in range(0, len(paths), batch_size):
        good, pixels = [], []
        for path in paths[start : start + batch_size]:
            try:
                pixels.append(predictor.opened(path))
                good.append(path)
            except DataError as error:
                for line in error.lines:
                    print(f"error: {_printable(line)}", file=sys.stderr)
        if good:
            yield from zip(good, predictor.rank(torch.stack(pixels)), strict=True)


def _json(path: str, ranking: Ranking) -> str:
    top = [{"class": name, "probability": probability} for name, probability in ranking]
    return json.dumps({"input": path, **top[0], "top": top})


class _Table:
    """Columns wide enough for every path and class, known beforehand, so that rows appear as they are computed."""

    def __init__(self, paths: Sequence[str], classes: Sequence[str], top: int) -> None:
        self._file = max(len(_printable(text)) for text in ("file", *paths))
        self._class = max(len(_printable(text)) for text in ("class", *classes))
        self._top = top

    def head(self) -> str:
        ranks = "  ".join(f"{'class':<{self._class}}  probability" for _ in range(self._top))
        return f"{'file':<{self._file}}  {ranks}"

    def row(self, path: str, ranking: Ranking) -> str:
        ranks = "  ".join(f"{_printable(name):<{self._class}}  {probability:>11.4f}" for name, probability in ranking)
        return f"{_printable(path):<{self._file}}  {ranks}"


def _printable(text: str) -> str:
    """A file's name may hold control codes, or bytes that are not text."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
