"""`bigmodel-predict`: what a trained run says of raw input."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.schema import Predict
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import escape_control, json_line
from bigmodel.inference.predictor import Predictor, load
from bigmodel.inference.processors.texts import TextInputProcessor
from bigmodel.interfaces import HasNotes
from bigmodel.runtime.device import Device
from bigmodel.runtime.signals import StopRequest
from bigmodel.training.error_translation import translate_oom


def run(config: Config, stop: StopRequest | None = None) -> None:
    """Predict and print, a line for each source; a bad one is reported and the others are still done.

    Raises:
        ConfigError: no such run.
        DataError: nothing matches the input, or some of it could not be read.
        OutOfMemoryError: a batch does not fit.
        StorageError: no checkpoint verifies.
    """
    settings = Predict(**config.values)
    device: Device = instantiate("device", settings.device, config.trust)
    device.configure_torch()
    predictor = load(settings.run, device, config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    if settings.encoding is not None:
        if not isinstance(predictor.processor, TextInputProcessor):
            raise ConfigError("encoding: this run's model reads no text files; leave it null")
        predictor.processor.texts.encoding = settings.encoding
    sources = predictor.processor.list_inputs(settings.input)
    if isinstance(predictor.processor, HasNotes):
        for line in predictor.processor.notes:
            print(f"note: {escape_control(line)}", file=sys.stderr)
    done: Counter[bool] = Counter()
    sample = {key: value for key, value in settings.sample.items() if key != "_target_"}
    asked = {"top": settings.top, "sample": sample, "beam": settings.beam, "output": settings.output}
    answered = _answered(predictor, sources, settings.batch_size, asked, done)
    if settings.format == "json":
        for source, answer in answered:
            print(json_line({"input": source} | answer, sys.stdout.encoding), flush=True)
    else:
        for line in predictor.processor.format_rows(sources if isinstance(sources, Sequence) else (), answered):
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
                samples.append(predictor.processor.load(source))
                good.append(source)
                done[True] += 1
            except DataError as error:
                done[False] += 1
                for line in error.lines:
                    print(f"error: {escape_control(line)}", file=sys.stderr)
        if good:
            with translate_oom(f"at batch_size={batch_size}; lower it, or beam={asked['beam']} where that is used"):
                answers = predictor.predict_batch(samples, **asked)
            yield from zip(good, answers, strict=True)
