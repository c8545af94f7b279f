"""Molecules as SMILES strings: with a class, a number or labels as targets, or alone, for masked tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bigmodel.constraints import Positive, PositiveInt, ProperFraction
from bigmodel.datasets.files import class_counts
from bigmodel.datasets.files.table_files import Row, Table, TableFormat, find_file, read_rows
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.datasets.tables.table_checks import rows_without_problem
from bigmodel.datasets.tables.targets import MultiLabelTargets, TargetEncoder, split_rows
from bigmodel.datasets.text.smiles import SmilesTokenizer
from bigmodel.errors import ConfigError, DataError
from bigmodel.padding import pad

__all__ = ["molecules", "smiles_strings"]

_KINDS = {
    "class": "bigmodel.inference.processors.sentences.TextClassificationProcessor",
    "number": "bigmodel.inference.processors.text_values.TextRegressionProcessor",
    "labels": "bigmodel.inference.processors.text_values.TextMultiLabelProcessor",
}
_HIDDEN = "bigmodel.inference.processors.hidden_tokens.MaskedTokenProcessor"
_BLANK = " \t\r\n"
_TOKENIZER = SmilesTokenizer()


def molecules(
    root: str,
    train: str,
    smiles: str,
    targets: Sequence[str],
    target_type: Literal["class", "number", "labels"],
    context: PositiveInt,
    val_fraction: ProperFraction,
    test_fraction: ProperFraction = 0.0,
    test: str | None = None,
    separator: str | None = ",",
    encoding: str | None = None,
    missing: Sequence[str] = ("",),
    broken: Literal["refuse", "skip"] = "refuse",
    source: str | None = None,
    vocab_size: PositiveInt | None = None,
    outputs: PositiveInt | None = None,
    num_classes: PositiveInt | None = None,
    target_std: Positive | None = None,
    labels: Sequence[str] | None = None,
) -> TensorDataset:
    """Inputs are tokens (N, context), int64, filled up with -1; of longer strings the end is cut off. Targets are
    classes int64 (N,), a number float32 (N, 1), standardised, or labels float32 (N, K): 0, 1, NaN where missing.

    `train` and `test` are files in `root`, or in a folder up to two below it; the column `smiles` holds the strings.
    Without `test`, `test_fraction` of the strings are one, drawn at random, the same for every seed; `val_fraction` of
    the rest is held out. Rows of one and the same string are in one split.

    The arguments from `vocab_size` on, if not None, must be the data's.

    Raises:
        ConfigError: there is more than one target that is no label, one is there twice, or a value is not the data's.
        DataError: a file is missing, or rows are bad; each is named by file, line and column.
    """
    _check_targets(targets, target_type)
    form = TableFormat(separator=separator, missing=missing, strip=_BLANK, encoding=encoding, broken=broken)
    file = find_file(root, train, "train", source)
    notes: list[str] = []
    rows = _validate_rows(read_rows(file, form, [smiles, *targets]), smiles, notes, targets, target_type)
    label = targets[0] if target_type == "class" else None
    splits = _splits(rows, smiles, val_fraction, 0.0 if test else test_fraction, label)
    if test is not None:
        other = find_file(root, test, "test", source)
        splits["test"] = _validate_rows(read_rows(other, form, [smiles, *targets]), smiles, notes, targets, target_type)
    known = splits["train"]
    answer = (
        MultiLabelTargets(known, targets) if target_type == "labels" else TargetEncoder(known, targets[0], target_type)
    )
    tensors = {
        name: (_tokens([row.text(smiles) for row in part], context), answer(part)) for name, part in splits.items()
    }
    if isinstance(answer, TargetEncoder) and answer.classes:
        numbers = {name: targets_N.tolist() for name, (_, targets_N) in tensors.items()}
        notes += class_counts.describe_counts("molecule", answer.classes, numbers)
        notes += class_counts.stand_ins(answer.classes, missing)
        notes += class_counts.warn_numeric_classes(answer.classes)
    about = {key: value for key, value in answer.about().items() if key != "target" or target_type == "number"}
    properties = _properties(about, len(targets))
    claims = {"vocab_size": vocab_size, "outputs": outputs, "num_classes": num_classes, "target_std": target_std}
    check_claims(claims | {"labels": labels}, properties)
    return TensorDataset(
        tensors,
        properties={key: value for key, value in properties.items() if value is not None},
        description=f"{_describe_targets(targets, target_type, properties['outputs'])}, {_size(context)}",
        spec={
            "kind": _KINDS[target_type],
            **about,
            "tokenizer": dict(SmilesTokenizer.spec),
            "context": context,
            "text_column": [smiles],
            "separator": separator,
            "encoding": encoding,
        },
        fingerprint=fingerprint_tensors([tensor for pair in tensors.values() for tensor in pair]),
        trim_padding=True,
        notes=notes,
    )


def _check_targets(targets: Sequence[str], target_type: str) -> None:
    if not targets or (len(targets) > 1 and target_type != "labels"):
        raise ConfigError(
            f"dataset.targets: target_type={target_type} takes one column, got {len(targets)}; for several "
            "yes-or-no columns set dataset.target_type=labels"
        )
    if len(set(targets)) < len(targets):
        raise ConfigError(f"dataset.targets: names a column twice: {', '.join(targets)}")


def _properties(about: Mapping[str, Any], num_targets: int) -> dict[str, Any]:
    """Return what the model takes and the config may claim, from the processor spec `about` the targets."""
    return {
        "vocab_size": SmilesTokenizer.size,
        "outputs": len(about["classes"]) if "classes" in about else num_targets,
        "num_classes": len(about["classes"]) if "classes" in about else None,
        "target_std": about.get("target_std"),
        "labels": about.get("labels"),
    }


def _describe_targets(targets: Sequence[str], target_type: str, outputs: int) -> str:
    if target_type == "number":
        return f"one number ({targets[0]})"
    return f"{outputs} {'classes' if target_type == 'class' else 'labels'}"


def smiles_strings(
    root: str,
    files: Sequence[str],
    smiles: Sequence[str],
    context: PositiveInt,
    val_fraction: ProperFraction,
    test_fraction: ProperFraction,
    source: str | None = None,
    vocab_size: PositiveInt | None = None,
) -> TensorDataset:
    """The SMILES strings alone of several files, each string once; `smiles` are the names that their column may have.

    Each file is cut as `molecules` cuts it. A string that any file has for testing is in no other split, and one for
    validation is not in training: so fine-tuning on one of these files is evaluated on strings not seen in training.
    Inputs are as in `molecules`; targets (N,) are zeros.

    Raises:
        ConfigError: the number of tokens is not the tokenizer's.
        DataError: a file is missing, or rows are bad; each is named by file, line and column.
    """
    check_claims({"vocab_size": vocab_size}, {"vocab_size": SmilesTokenizer.size})
    notes: list[str] = []
    found: dict[str, dict[str, None]] = {"test": {}, "val": {}, "train": {}}
    for name in files:
        file = find_file(root, name, "files", source)
        rows = read_rows(file, TableFormat(strip=_BLANK))
        column = next((known for known in smiles if rows and known in rows[0].columns), None)
        if column is None:
            raise DataError(f"{file}: holds no rows with a column '{smiles[0]}'")
        for split, part in _splits(_validate_rows(rows, column, notes), column, val_fraction, test_fraction).items():
            found[split] |= dict.fromkeys(row.text(column) for row in part)
    seen: set[str] = set()
    tensors: dict[str, tuple[Tensor, Tensor]] = {}
    for split, texts in found.items():
        own = [text for text in texts if text not in seen]
        seen |= texts.keys()
        if own:
            tensors[split] = (_tokens(own, context), torch.zeros(len(own), dtype=torch.int64))
    if "train" not in tensors:
        raise DataError("dataset.files: every string is held out by one of them; none is left to train on")
    return TensorDataset(
        tensors,
        properties={"vocab_size": SmilesTokenizer.size},
        description=_size(context),
        spec={
            "kind": _HIDDEN,
            "tokenizer": dict(SmilesTokenizer.spec),
            "context": context,
            "text_column": list(smiles),
        },
        fingerprint=fingerprint_tensors([tokens for tokens, _ in tensors.values()]),
        trim_padding=True,
        notes=notes,
    )


def _validate_rows(
    rows: Table, smiles: str, notes: list[str], targets: Sequence[str] = (), target_type: str | None = None
) -> Sequence[Row]:
    """Return the valid rows of a file; refuse bad ones, or skip them with a line in `notes`."""
    if not rows:
        raise DataError(f"{rows.file}: holds no rows")
    problems: dict[int, tuple[str, str]] = {}
    for row in rows:
        try:
            _check(row, smiles, targets, target_type)
        except DataError as error:
            problems[row.index] = ("", "; ".join(error.lines))
    found, skipped = rows_without_problem(rows, problems)
    notes += [*rows.notes, *skipped]
    return found


def _check(row: Row, smiles: str, targets: Sequence[str], target_type: str | None) -> None:
    """Raise DataError if a string or target is missing or invalid."""
    text = row.text(smiles)
    if not text:
        raise row.error_at(smiles, "empty")
    try:
        _TOKENIZER.encode(text)
    except DataError as error:
        raise row.error_at(smiles, str(error)) from None
    for target in targets:
        if target_type != "labels" and not row.text(target):
            raise row.error_at(target, "the target is missing; fill it or remove the row")
        value = row.number(target) if target_type != "class" else 0.0
        if target_type == "labels" and value not in (0.0, 1.0) and row.text(target):
            raise row.error_at(target, f"'{row.text(target)}' is neither 0 nor 1")


def _splits(
    rows: Sequence[Row], smiles: str, val_fraction: float, test_fraction: float, label: str | None = None
) -> dict[str, Sequence[Row]]:
    """Split the rows; those of one string stay together, and each class of the column `label` has one in training."""
    texts = [row.text(smiles) for row in rows]
    parts = split_rows([*dict(zip(texts, rows, strict=True)).values()], None, val_fraction, test_fraction)
    place = {row.text(smiles): name for name, part in parts.items() for row in part}
    if label is not None:
        learned = {row.text(label) for row, text in zip(rows, texts, strict=True) if place[text] == "train"}
        for row, text in zip(rows, texts, strict=True):
            if row.text(label) not in learned:
                place[text] = "train"
                learned.add(row.text(label))
    split = {name: [row for row, text in zip(rows, texts, strict=True) if place[text] == name] for name in parts}
    return {name: part for name, part in split.items() if part}


def _tokens(texts: Sequence[str], context: int) -> Tensor:
    return pad([torch.from_numpy(_TOKENIZER.encode(text)) for text in texts], context)


def _size(context: int) -> str:
    return f"{SmilesTokenizer.size} tokens, up to {context} a molecule"
