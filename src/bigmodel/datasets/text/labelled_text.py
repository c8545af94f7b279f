"""Texts of one class each, from tables, folders, tars or TREC's files, as padded tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.files import class_counts
from bigmodel.datasets.files.table_files import find_file, raise_row_errors, sorted_labels
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.splits import holdout_split, keep_each_class
from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.datasets.text.labelled_rows import LabelledText, LabelledTextReader
from bigmodel.datasets.text.tokenizers import ByteTokenizer, Tokenizer, published_tokenizer
from bigmodel.datasets.text.word_tokenizer import FittedTokenizer, fit_char_tokenizer, fit_word_tokenizer
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import format_count
from bigmodel.padding import pad

__all__ = ["labelled_text"]

_FOLDERS = ("text",)  # of data_dir
_KINDS = {
    "class": "bigmodel.inference.processors.sentences.TextClassificationProcessor",
    "masked_token": "bigmodel.inference.processors.hidden_tokens.MaskedTokenProcessor",
}
_NAMED = 5  # labels in one note

_Rows = dict[str, list[LabelledText]]


def labelled_text(
    data_dir: str,
    train: str,
    text_column: Sequence[str] | str,
    label_column: str,
    tokenizer: Literal["word", "char", "byte", "published"],
    min_count: PositiveInt,
    context: PositiveInt,
    val_fraction: ProperFraction,
    test_fraction: ProperFraction = 0.0,
    val: str | None = None,
    test: str | None = None,
    source: str | None = None,
    class_names: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
    word_rule: Literal[1, 2] = 1,
    predicts: Literal["class", "masked_token"] = "class",
    num_classes: PositiveInt | None = None,
    vocab_size: PositiveInt | None = None,
    vocabulary: str | None = None,
) -> TensorDataset:
    """Files, relative to `data_dir` or its folder `text`: tables with a header, or whose names are `columns`, where
    `text_column` is the name of the text's column, or those that it may have; `.label` as TREC has them; a folder with
    one of `.txt` files a class, or with `train`, `val` and `test` of such; a tar of KEY.txt and KEY.cls.

    Inputs are tokens (N, context), int64, filled up with -1; of longer texts the end is cut off. Words, or characters,
    are learned from the training texts, less those held out; one that they hold fewer than `min_count` times is the
    same token as one never seen; or the tokens are those of a published `vocabulary`, as [CLS]. `word_rule`
    says how words are cut: see `word_tokenizer`. Classes are the labels of the training texts, sorted, by numbers if
    all are; `class_names` gives them other names, and of others than `classes` texts are left out. Without `test`,
    `test_fraction` of the training texts is one, the same for every seed.

    Raises:
        ConfigError: there is no such encoding, or the number of classes or tokens is not the data's.
        DataError: a file is missing or has bad rows; each is named by file, line and column.
    """
    text_columns = [text_column] if isinstance(text_column, str) else list(text_column)
    reader = LabelledTextReader(text_columns, label_column, separator, encoding, broken, columns=columns)
    named = {"train": train, "val": val, "test": test}
    files = {
        split: find_file(data_dir, file, split, source, _FOLDERS, or_folder=True)
        for split, file in named.items()
        if file is not None
    }
    rows = _read(reader, files, class_names or {})
    notes = [*reader.notes]
    if classes is not None:
        rows, lines = _only(rows, classes)
        notes += lines
    if "test" not in rows and test_fraction:
        rows, lines = _with_test(rows, test_fraction)
        notes += lines
    known = sorted_labels(row.label for row in rows["train"])
    _check_labels(rows, known, label_column, files)
    held = 0.0 if "val" in rows else val_fraction
    notes += _class_notes(rows, known, held)
    published = partial(published_tokenizer, Path(vocabulary or "."), vocab_size, context)
    made = _make_tokenizer(tokenizer, published, _training_texts(rows["train"], held), min_count, word_rule)
    properties = {"num_classes": len(known), "vocab_size": made.size}
    check_claims({"num_classes": num_classes, "vocab_size": vocab_size}, properties)
    encoded = {split: [torch.from_numpy(made.encode(row.text)) for row in part] for split, part in rows.items()}
    if isinstance(made, FittedTokenizer):
        notes += _note_unknown_tokens(encoded, made, tokenizer, min_count)
    longer = sum(len(tokens) > context for part in encoded.values() for tokens in part)
    numbers = {label: number for number, label in enumerate(known)}
    splits = {
        split: (pad(encoded[split], context), torch.tensor([numbers[row.label] for row in part]))
        for split, part in rows.items()
    }
    return TensorDataset(
        splits,
        properties=properties,
        description=f"{format_count(len(known), 'class', 'classes')}, {made.size:,} tokens, up to {context} a sample"
        + (f" ({format_count(longer, 'longer one')} cut)" if longer else ""),
        spec={
            "kind": _KINDS[predicts],
            **({"classes": known} if predicts == "class" else {}),
            "tokenizer": dict(made.spec),
            "context": context,
            "text_column": text_columns,
            "label_column": label_column,
            "columns": columns,
            "separator": separator,
            "encoding": encoding,
            "by_file": files["train"].is_dir(),
        },
        fingerprint=fingerprint_tensors([tensor for pair in splits.values() for tensor in pair]),
        val_fraction=val_fraction,
        trim_padding=True,
        notes=notes,
    )


def _read(reader: LabelledTextReader, files: Mapping[str, Path], names: Mapping[str, str]) -> _Rows:
    """Read all splits, those too that lie in one folder; a label in `names` gets the name given there."""
    rows: _Rows = {}
    for split, file in files.items():
        rows |= {name: part for name, part in reader.splits(file, split).items() if name == split or name not in files}
    return {
        split: [replace(row, label=names.get(row.label, row.label)) for row in part] for split, part in rows.items()
    }


def _check_labels(rows: _Rows, known: Sequence[str], label_column: str, files: Mapping[str, Path]) -> None:
    """Raise DataError where a text has a label that no training text has."""
    labels = set(known)
    for split, part in rows.items():
        strange = [row for row in part if row.label not in labels]
        raise_row_errors(
            [
                f"{row.location}: column '{label_column}': no training text has the label '{row.label}'"
                for row in strange
            ],
            files.get(split, files["train"]),
        )


def _make_tokenizer(
    name: str, published: Callable[[], Tokenizer], texts: Sequence[str], min_count: int, word_rule: Literal[1, 2]
) -> Tokenizer:
    if name == "published":
        return published()
    if name == "byte":
        return ByteTokenizer()
    return fit_char_tokenizer(texts, min_count) if name == "char" else fit_word_tokenizer(texts, min_count, word_rule)


def _training_texts(rows: Sequence[LabelledText], held: float) -> list[str]:
    """Return the texts that are not held out for validation."""
    trained, _ = holdout_split(len(rows), held)
    return [rows[number].text for number in trained.tolist()]


def _only(rows: _Rows, classes: Sequence[str]) -> tuple[_Rows, list[str]]:
    """Keep the rows of these classes, with a note of the labels left out."""
    out = Counter(row.label for part in rows.values() for row in part if row.label not in classes)
    left = {split: [row for row in part if row.label in classes] for split, part in rows.items()}
    missing = [label for label in classes if all(row.label != label for row in left["train"])]
    if missing:
        known = ", ".join(sorted({row.label for row in rows["train"]}))
        raise ConfigError(f"dataset.classes: no training text has the label '{missing[0]}'; labels: {known}")
    note = f"{format_count(out.total(), 'text')} of other labels left out: {_list_names(sorted(out))} (dataset.classes)"
    return left, [note] if out else []


def _with_test(rows: _Rows, fraction: float) -> tuple[_Rows, list[str]]:
    """Move a fraction of the training rows to a test split; every class keeps a training row."""
    train = rows["train"]
    split = (part.tolist() for part in holdout_split(len(train), fraction))
    kept, tested, back = keep_each_class([row.label for row in train], *split)
    note = f"one text each stays in training of the rarest labels: {_list_names(back)}"
    parts = {"train": [train[n] for n in kept], "test": [train[n] for n in tested]}
    return rows | {name: part for name, part in parts.items() if part}, [note] if back else []


def _class_notes(rows: _Rows, classes: Sequence[str], val_fraction: float) -> list[str]:
    """Return the sizes of the classes by split, and notes about classes that look like mistakes."""
    numbers = {label: number for number, label in enumerate(classes)}
    labels = {split: [numbers[row.label] for row in part] for split, part in rows.items()}
    notes = class_counts.describe_counts("text", classes, labels)
    notes += class_counts.warn_held_out_classes(classes, labels["train"], val_fraction)
    return [*notes, *class_counts.stand_ins(classes), *class_counts.lists(classes)]


def _note_unknown_tokens(
    encoded: Mapping[str, Sequence[Tensor]], made: FittedTokenizer, tokenizer: str, min_count: int
) -> list[str]:
    """Return notes about splits of whose words or letters most are unknown from training; signs are not counted.

    Raises:
        DataError: training knows none.
    """
    shares = {}
    signs = torch.tensor(made.signs)
    for split, part in encoded.items():
        tokens = torch.cat([*part])
        shares[split] = int((tokens == 0).sum()) / max(1, int((~torch.isin(tokens, signs)).sum()))
    what = {"word": "words", "char": "characters"}[tokenizer]
    if shares["train"] == 1:
        raise DataError(
            f"dataset.tokenizer: no {what[:-1]} of the training texts occurs as often as min_count={min_count}, so all "
            "texts would be the same to a model; lower dataset.min_count, or set dataset.tokenizer=char or byte"
        )
    return [
        f"warning: {share:.0%} of the {what} of the {split} texts are unknown; lower dataset.min_count "
        f"(now {min_count}), or set dataset.tokenizer={'char or byte' if tokenizer == 'word' else 'byte'}"
        for split, share in shares.items()
        if share > 0.5
    ]


def _list_names(labels: Sequence[str]) -> str:
    more = len(labels) - _NAMED
    return ", ".join(labels[:_NAMED]) + (f" and {more} more" if more > 0 else "")
