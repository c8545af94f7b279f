"""`bigmodel-predict`: the predictions of a trained run for raw input."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from bigmodel.commands.chat import print_stream, talk
from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.schema import NOT_GIVEN, Predict, command_keys, processor_options
from bigmodel.datasets.files.table_files import STDIN
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import escape_control, format_count, json_line
from bigmodel.inference.predictor import Predictor, load
from bigmodel.inference.processors.texts import TextInputProcessor
from bigmodel.interfaces import HasNotes
from bigmodel.runtime.device import Device
from bigmodel.runtime.signals import StopRequest
from bigmodel.training.error_translation import translate_oom


def run(config: Config, stop: StopRequest | None = None, report: Callable[[str], object] = lambda text: None) -> None:
    """Print the prediction for each source; report sources that cannot be read, and go on with the others.

    `report` is told what is being done, or "" where somebody types or a text appears piece by piece.

    Raises:
        ConfigError: the run does not exist, or its processor lacks an option that was given.
        DataError: nothing matches the input, or a source could not be read.
        OutOfMemoryError: a batch does not fit.
        StorageError: no checkpoint verifies.
    """
    settings = Predict(**command_keys(config.values, "predict"))
    device: Device = instantiate("device", settings.device, config.trust)
    device.check_alone()
    device.configure_torch()
    report("opening the run")
    predictor = load(settings.run, device, config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    processor = predictor.processor
    options = predictor.build_options(processor_options(config.values), parse_texts=True)
    if settings.chat:
        report("")
        given = None if settings.input == NOT_GIVEN else settings.input
        talk(predictor, given, options, settings.format == "json")
        return
    if settings.encoding is not None:
        if not isinstance(processor, TextInputProcessor):
            raise ConfigError("encoding: this run's model reads no text files; leave it null")
        processor.texts.encoding = settings.encoding
    if settings.stream:
        report("")
        print_stream(predictor, settings.input, options, settings.format == "json")
        return
    report("" if settings.input == STDIN else "predicting")
    sources = processor.list_inputs(settings.input)
    if isinstance(processor, HasNotes):
        for line in processor.notes:
            print(f"note: {escape_control(line)}", file=sys.stderr)
    num_read: Counter[bool] = Counter()  # by success
    predictions = _predict(predictor, sources, settings.batch_size, options, num_read)
    if settings.format == "json":
        for source, prediction in predictions:
            print(json_line({"input": source} | prediction, sys.stdout.encoding), flush=True)
    else:
        for line in processor.format_rows(sources if isinstance(sources, Sequence) else (), predictions):
            print(line, flush=True)
    if failed := num_read[False]:
        raise DataError(
            f"{failed} of {format_count(num_read.total(), 'input')} could not be read; the lines above name them"
        )


def _predict(
    predictor: Predictor, sources: Iterable[str], batch_size: int, options: Any, num_read: Counter[bool]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each source that can be read with its prediction; count successes and failures in `num_read`."""
    hint = f", or beam={options.beam}" if hasattr(options, "beam") else ""
    remaining = iter(sources)
    while batch := list(islice(remaining, batch_size)):
        good, samples = [], []
        for source in batch:
            try:
                samples.append(predictor.processor.load(source))
            except DataError as error:
                num_read[False] += 1
                for line in error.lines:
                    print(f"error: {escape_control(line)}", file=sys.stderr)
            else:
                good.append(source)
                num_read[True] += 1
        if good:
            with translate_oom(f"at batch_size={batch_size}; lower it{hint}"):
                predictions = predictor.predict_batch(samples, options)
            yield from zip(good, predictions, strict=True)
