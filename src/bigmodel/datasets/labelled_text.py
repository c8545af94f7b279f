"""Texts of one class each, from CSV, TSV or TREC's files, as padded tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from bigmodel.datasets.labelled_rows import Row, questions, table
from bigmodel.datasets.rows import find, refuse, sorted_labels
from bigmodel.datasets.splits import held_out
from bigmodel.datasets.tensors import TensorDataset, fingerprint
from bigmodel.datasets.tokenizers import Bytes, Tokenizer, learned_words
from bigmodel.errors import DataError
from bigmodel.padding import padded
from bigmodel.ranges import BelowOne, PositiveInt

__all__ = ["labelled_text"]

_FOLDERS = ("", "text/", "shared/text/")  # of data_dir
_KINDS = {
    "class": "bigmodel.predicting.sentences.Sentences",
    "hidden_token": "bigmodel.predicting.hidden_tokens.HiddenTokens",
}


def labelled_text(
    data_dir: str,
    train: str,
    text_column: Sequence[str],
    label_column: str,
    tokenizer: Literal["word", "byte"],
    min_count: PositiveInt,
    context: PositiveInt,
    val_fraction: BelowOne,
    test_fraction: BelowOne = 0.0,
    val: str | None = None,
    test: str | None = None,
    source: str | None = None,
    class_names: Mapping[str, str] | None = None,
    predicts: Literal["class", "hidden_token"] = "class",
    num_classes: PositiveInt | None = None,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """Files, relative to `data_dir` or its folder `text`: `.label` as TREC has them; `.tsv` with tabs and no quotes,
    others CSV, with a header. `text_column` holds the names that the text's column may have.

    Inputs are tokens (N, context), int64, filled up with -1; of longer texts the end is cut off. Words are in lower
    case and learned from the training texts, less those held out; one that they hold fewer than `min_count` times is
    the same token as a word never seen. Classes are the labels of the training texts, sorted, by numbers if all are;
    `class_names` gives them other names. Without `test`, `test_fraction` of the training texts is one, the same for
    every seed.

    Raises:
        DataError: a file is missing or has bad rows; each is named by file, line and column.
        ValueError: the number of classes or tokens is not the data's.
    """
    named = {"train": train, "val": val, "test": test}
    files = {split: _found(data_dir, split, file, source) for split, file in named.items() if file is not None}
    rows = {split: _rows(file, text_column, label_column) for split, file in files.items()}
    if test is None and test_fraction:
        kept, tested = held_out(len(rows["train"]), test_fraction)
        rows |= {name: [rows["train"][n] for n in part.tolist()] for name, part in (("test", tested), ("train", kept))}
    names = class_names or {}
    rows = {
        split: [replace(row, label=names.get(row.label, row.label)) for row in part] for split, part in rows.items()
    }
    classes = sorted_labels(row.label for row in rows["train"])
    numbers = {label: number for number, label in enumerate(classes)}
    for split, part in rows.items():
        strange = [row for row in part if row.label not in numbers]
        refuse(
            [f"{row.place}: column '{label_column}': no training text is of '{row.label}'" for row in strange],
            files.get(split, files["train"]),
        )
    kept, _ = held_out(len(rows["train"]), 0.0 if "val" in rows else val_fraction)
    texts = [rows["train"][number].text for number in kept.tolist()]
    made: Tokenizer = Bytes() if tokenizer == "byte" else learned_words(texts, min_count)
    facts = {"num_classes": len(classes), "vocab_size": made.size}
    for name, told in (("num_classes", num_classes), ("vocab_size", vocab_size)):
        if told not in (None, facts[name]):
            raise ValueError(f"{name}: the data has {facts[name]}, not {told}; leave it null")
    splits = {
        split: (
            padded([torch.from_numpy(made.encode(row.text)) for row in part], context),
            torch.tensor([numbers[row.label] for row in part]),
        )
        for split, part in rows.items()
    }
    of_classes = {"classes": classes} if predicts == "class" else {}
    return TensorDataset(
        splits,
        facts=facts,
        summary=f"{len(classes)} classes, {made.size:,} tokens, up to {context} a sample",
        carried={"kind": _KINDS[predicts], **of_classes, "tokenizer": dict(made.carried), "context": context},
        fingerprint=fingerprint([tensor for pair in splits.values() for tensor in pair]),
        val_fraction=val_fraction,
        trimmed=True,
    )


def _rows(file: Path, text_column: Sequence[str], label_column: str) -> list[Row]:
    rows = questions(file) if file.suffix == ".label" else table(file, text_column, label_column)
    if not rows:
        raise DataError(f"{file}: holds no texts")
    return rows


def _found(data_dir: str, key: str, name: str, source: str | None) -> Path:
    return find(data_dir, name, key, source, _FOLDERS)
