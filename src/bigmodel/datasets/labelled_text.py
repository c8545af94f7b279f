"""Texts of one class each: your own in CSV or TSV files, and four published sets of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from bigmodel.datasets.labelled_rows import Row, questions, refuse, table
from bigmodel.datasets.splits import held_out
from bigmodel.datasets.tensors import TensorDataset, fingerprint
from bigmodel.datasets.tokenizers import Bytes, Tokenizer, learned_words
from bigmodel.errors import DataError
from bigmodel.padding import padded
from bigmodel.ranges import BelowOne, PositiveInt

__all__ = ["banking77", "labelled_text", "sms_spam", "sst2", "trec"]

_FOLDERS = (".", "text", "shared/text")  # under data_dir


def labelled_text(
    train: str,
    text_column: str,
    label_column: str,
    tokenizer: Literal["word", "byte"],
    min_count: PositiveInt,
    context: PositiveInt,
    val_fraction: BelowOne,
    val: str | None = None,
    test: str | None = None,
    num_classes: PositiveInt | None = None,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """Files with a header: `.tsv` has tabs and no quotes, others are CSV. Inputs are tokens (N, context), int64, filled
    up with -1; of longer texts the end is cut off. Words are in lower case and learned from the training texts, less
    those held out; what they hold fewer than `min_count` times is one token, as is every word never seen.

    Raises:
        DataError: a file is missing or has bad rows; each is named by file, line and column.
        ValueError: the number of classes or tokens is not the data's.
    """
    files = {"train": train, "val": val, "test": test}
    rows = {
        split: table(Path(file).expanduser().absolute(), [text_column], label_column)
        for split, file in files.items()
        if file is not None
    }
    return _made(rows, tokenizer, min_count, context, val_fraction, num_classes, vocab_size)


def sst2(
    data_dir: str,
    tokenizer: Literal["word", "byte"],
    min_count: PositiveInt,
    context: PositiveInt,
    num_classes: PositiveInt | None = None,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """Phrases and sentences of film reviews, negative or positive (Socher et al. 2013), in GLUE's layout: train.tsv,
    dev.tsv and, with labels, test.tsv. DataError and ValueError as `labelled_text`.
    """
    folder = _found(data_dir, "sst2", "train.tsv", "dev.tsv", "test.tsv", where="the Stanford Sentiment Treebank")
    rows = {
        split: table(folder / name, ["sentence", "content"], "label")
        for split, name in {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}.items()
    }
    names = {"0": "negative", "1": "positive"}
    rows = {split: [Row(r.place, r.text, names.get(r.label, r.label)) for r in part] for split, part in rows.items()}
    return _made(rows, tokenizer, min_count, context, 0.0, num_classes, vocab_size)


def trec(
    data_dir: str,
    tokenizer: Literal["word", "byte"],
    min_count: PositiveInt,
    context: PositiveInt,
    val_fraction: BelowOne,
    num_classes: PositiveInt | None = None,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """Questions by what they ask for, six coarse classes (Li & Roth 2002): train_5500.label and TREC_10.label, the test.
    DataError and ValueError as `labelled_text`.
    """
    folder = _found(data_dir, "trec", "train_5500.label", "TREC_10.label", where="cogcomp.seas.upenn.edu/Data/QA/QC")
    rows = {"train": questions(folder / "train_5500.label"), "test": questions(folder / "TREC_10.label")}
    return _made(rows, tokenizer, min_count, context, val_fraction, num_classes, vocab_size)


def banking77(
    data_dir: str,
    tokenizer: Literal["word", "byte"],
    min_count: PositiveInt,
    context: PositiveInt,
    val_fraction: BelowOne,
    num_classes: PositiveInt | None = None,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """What customers ask a bank, 77 intents (Casanueva et al. 2020): train.csv and test.csv.
    DataError and ValueError as `labelled_text`.
    """
    folder = _found(data_dir, "banking77", "train.csv", "test.csv", where="github.com/PolyAI-LDN/task-specific-datasets")
    rows = {split: table(folder / f"{split}.csv", ["text"], "category") for split in ("train", "test")}
    return _made(rows, tokenizer, min_count, context, val_fraction, num_classes, vocab_size)


def sms_spam(
    data_dir: str,
    tokenizer: Literal["word", "byte"],
    min_count: PositiveInt,
    context: PositiveInt,
    val_fraction: BelowOne,
    test_fraction: BelowOne,
    num_classes: PositiveInt | None = None,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """Text messages, ham or spam (Almeida et al. 2011): sms_spam.tsv. It has no official test split: `test_fraction` of
    it is one, the same for every seed. DataError and ValueError as `labelled_text`.
    """
    folder = _found(data_dir, ".", "sms_spam.tsv", where="the UCI repository, as a table with the header Label, SMS")
    whole = table(folder / "sms_spam.tsv", ["SMS"], "Label")
    train, test = held_out(len(whole), test_fraction)
    rows = {"train": [whole[n] for n in train.tolist()], "test": [whole[n] for n in test.tolist()]}
    rows = {split: part for split, part in rows.items() if part}
    return _made(rows, tokenizer, min_count, context, val_fraction, num_classes, vocab_size)


def _made(
    rows: Mapping[str, Sequence[Row]],
    tokenizer: str,
    min_count: int,
    context: int,
    val_fraction: float,
    num_classes: int | None,
    vocab_size: int | None,
) -> TensorDataset:
    for split, part in rows.items():
        if not part:
            raise DataError(f"dataset: the file of {split} has no rows")
    classes = _sorted_labels({row.label for row in rows["train"]})
    numbers = {label: number for number, label in enumerate(classes)}
    for part in rows.values():
        strange = [f"{r.place}: no training text has the label '{r.label}'" for r in part if r.label not in numbers]
        refuse(strange, Path(part[0].place.rpartition(":")[0]))
    kept, _ = held_out(len(rows["train"]), 0.0 if "val" in rows else val_fraction)
    texts = [rows["train"][number].text for number in kept.tolist()]
    made: Tokenizer = Bytes() if tokenizer == "byte" else learned_words(texts, min_count)
    for name, told, true in (("num_classes", num_classes, len(classes)), ("vocab_size", vocab_size, made.size)):
        if told not in (None, true):
            raise ValueError(f"{name}: the data has {true}, not {told}; leave it null")
    splits = {
        split: (
            padded([torch.from_numpy(made.encode(row.text)) for row in part], context),
            torch.tensor([numbers[row.label] for row in part]),
        )
        for split, part in rows.items()
    }
    return TensorDataset(
        splits,
        facts={"num_classes": len(classes), "vocab_size": made.size},
        summary=f"{len(classes)} classes, {made.size:,} tokens, up to {context} a sample",
        carried={
            "kind": "bigmodel.predicting.sentences.Sentences",
            "classes": classes,
            "tokenizer": dict(made.carried),
            "context": context,
        },
        fingerprint=fingerprint([tensor for pair in splits.values() for tensor in pair]),
        val_fraction=val_fraction,
        trimmed=True,
    )


def _found(data_dir: str, name: str, *files: str, where: str) -> Path:
    """The folder that holds these files. DataError says which is missing."""
    folders = [Path(data_dir).expanduser().absolute() / folder / name for folder in _FOLDERS]
    for folder in folders:
        if all((folder / file).is_file() for file in files):
            return folder
    listed = " and ".join(str(Path(name) / file) for file in files)
    raise DataError(f"dataset: there is no {listed} in '{data_dir}', nor in its folder text; get it from {where}")


def _sorted_labels(labels: set[str]) -> list[str]:
    """Sorted as numbers if all are whole numbers."""
    try:
        return sorted(labels, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(labels)
