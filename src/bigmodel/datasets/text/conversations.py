"""Conversations or instructions as JSON lines, written by a chat template; the answers alone are targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.loading.packing import PackedDataset
from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.datasets.text.messages import AnswerWriter, read_lines, read_messages
from bigmodel.formatting import format_count
from bigmodel.padding import pad

__all__ = ["conversations"]


def conversations(
    path: str,
    vocabulary: str | None,
    context: PositiveInt,
    val_fraction: ProperFraction,
    broken: Literal["refuse", "skip"] = "refuse",
    packing: bool = False,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset | PackedDataset:
    """Lines of JSON: `messages` of `role` and `content`; `conversations` of `from` and `value` (sharegpt); or
    `instruction`, `input` and `output` (alpaca).

    Inputs are tokens (N, T) and targets the next of each (N, T), int64, -1 where it is no part of an answer. An answer
    ends with a token that stops it, which is a target too; what the template writes before it is none. Lines that are
    `broken` or longer than `context` tokens are refused, or skipped and counted. With `packing` a sample is a row of
    several conversations: see `PackedDataset`.

    Raises:
        DataError: a file is missing, or has broken lines; or the vocabulary has no chat template.
    """
    writer = AnswerWriter.open(vocabulary, vocab_size, context)
    samples, notes = read_lines(Path(path), lambda record: writer.write(read_messages(record)), broken)
    tokens, targets = ([pair[index] for pair in samples] for index in (0, 1))
    inputs, padded = pad(tokens), pad(targets)
    answers = format_count(int((padded >= 0).sum()), "token")
    described = f"{format_count(len(samples), 'conversation')}, {answers} of answers"
    facts: dict[str, Any] = {
        "properties": {"vocab_size": writer.tokenizer.size},
        "spec": writer.processor_spec,
        "fingerprint": fingerprint_tensors([inputs, padded]),
        "notes": notes,
    }
    if packing:
        return PackedDataset.of(tokens, targets, context, val_fraction, described, **facts)
    return TensorDataset(
        {"train": (inputs, padded)},
        description=f"{described}, up to {inputs.shape[1]} a sample",
        val_fraction=val_fraction,
        trim_padding=True,
        **facts,
    )
