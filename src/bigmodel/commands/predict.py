"""`bigmodel-predict`: what a trained run says of raw input."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from bigmodel.config.config import Config
from bigmodel.config.instantiate import build
from bigmodel.config.schema import Predict
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import json_line, printable
from bigmodel.inference.predictor import Predictor, load
from bigmodel.inference.processors.texts import OfTexts
from bigmodel.interfaces import Noting
from bigmodel.runtime.device import Device
from bigmodel.runtime.signals import Stop
from bigmodel.training.error_translation import out_of_memory_in_words


def run(config: Config, stop: Stop | None = None) -> None:
    """Predict and print, a line for each source; a bad one is reported and the others are still done.

    Raises:
        ConfigError: no such run.
        DataError: nothing matches the input, or some of it could not be read.
        OutOfMemoryError: a batch does not fit.
        StorageError: no checkpoint verifies.
    """
    settings = Predict(**config.tree)
    device: Device = build("device", settings.device, config.trust)
    device.prepare()
    predictor = load(settings.run, device, config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    if settings.encoding is not None:
        if not isinstance(predictor.kind, OfTexts):
            raise ConfigError("encoding: this run's model reads no text files; leave it null")
        predictor.kind.texts.encoding = settings.encoding
    sources = predictor.kind.find(settings.input)
    if isinstance(predictor.kind, Noting):
        for line in predictor.kind.notes:
            print(f"note: {printable(line)}", file=sys.stderr)
    done: Counter[bool] = Counter()
    sample = {key: value for key, value in settings.sample.items() if key != "_target_"}
    asked = {"top": settings.top, "sample": sample, "beam": settings.beam, "output": settings.output}
    answered = _answered(predictor, sources, settings.batch_size, asked, done)
    if settings.format == "json":
        for source, answer in answered:
            print(json_line({"input": source} | answer, sys.stdout.encoding), flush=True)
    else:
        for line in predictor.kind.table(sources if isinstance(sources, Sequence) else (), answered):
            print(line, flush=True)
    if bad := done[False]:
        raise DataError(f"{bad} of {done.total()} inputs could not be read; the lines above name them")


def _answered(
    predictor: Predictor, sources: Iterable[str], batch_size: int, asked: dict[str, Any], done: Counter[bool]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each source that can be read, with its answer. `done` counts those that could, and not."""
    coming = iter(sources)
    while batch := list(islice(coming, batch_size)):
        good, samples = [], []
        for source in batch:
            try:
                samples.append(predictor.kind.read(source))
                good.append(source)
                done[True] += 1
            except DataError as error:
                done[False] += 1
                for line in error.lines:
                    print(f"error: {printable(line)}", file=sys.stderr)
        if good:
            with out_of_memory_in_words(
                f"at batch_size={batch_size}; lower it, or beam={asked['beam']} where that is used"
            ):
                answers = predictor.answers(samples, **asked)
            yield from zip(good, answers, strict=True)
