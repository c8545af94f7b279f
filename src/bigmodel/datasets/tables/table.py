"""Table rows, of which one column, a class or a number, is predicted from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from bigmodel.constraints import NonNegativeInt, Positive, PositiveInt, ProperFraction
from bigmodel.datasets.files import class_counts
from bigmodel.datasets.files.table_files import Table, TableFormat, find_file, read_rows
from bigmodel.datasets.files.table_format import changed_fields
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.datasets.tables.encoding import FeatureEncoder
from bigmodel.datasets.tables.roles import ColumnRoles, infer_roles, target_kind, why_identifier, with_leading_zero
from bigmodel.datasets.tables.table_checks import describe_missing, likely_sentinels, valid_rows
from bigmodel.datasets.tables.targets import TargetEncoder, split_rows
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import format_count, truncate

__all__ = ["table"]

_Split = tuple[Tensor, Tensor]


def table(
    root: str,
    train: str,
    target: str,
    target_type: Literal["auto", "class", "number"],
    categorical_columns: Sequence[str],
    numeric_columns: Sequence[str] | None,
    ignored_columns: Sequence[str],
    val_fraction: ProperFraction,
    test_fraction: ProperFraction,
    test: str | None = None,
    time: str | None = None,
    time_format: str | None = None,
    columns: Sequence[str] | None = None,
    separator: str | None = ",",
    comment: str | None = None,
    strip: str = " ",
    missing: Sequence[str] = ("",),
    encoding: str | None = None,
    decimal: Literal[".", ","] = ".",
    header: bool | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
    roles: Literal["infer", "as_given"] = "as_given",
    stratify: bool = False,
    source: str | None = None,
    num_numeric: NonNegativeInt | None = None,
    cardinalities: Sequence[PositiveInt] | None = None,
    outputs: PositiveInt | None = None,
    num_classes: PositiveInt | None = None,
    target_std: Positive | None = None,
) -> TensorDataset:
    """Inputs float32 (N, F) as `FeatureEncoder` makes them; targets int64 (N,) of classes, or float32 (N, 1),
    standardised.

    `train` and `test` are files in `root`, or in a folder up to two below it. `roles` infer: columns without a role get
    one by their values; as_given: they are numbers, where `numeric_columns` is None. `target_type` auto: by its values.
    Without a `test` file, `test_fraction` of the rows are the test split; `val_fraction` of what remains is held out.
    Which rows these are is the same for every seed; if `stratify`, each class has its share of them and keeps a row for
    training; with a column of `time`, they are the latest ones. All that is learned, means, deviations, categories and
    classes, is learned on the rest.

    `num_numeric`, `cardinalities`, `outputs`, `num_classes` and `target_std`, if not None, must be the data's.

    Raises:
        ConfigError: a column has two roles, or a value is not the data's.
        DataError: a file is missing, or rows are bad; each is named by file, line and column.
    """
    form = TableFormat(columns, separator, comment, strip, missing, True, encoding, decimal, header, broken)
    times = [] if time is None else [time]
    given = [target, *categorical_columns, *(numeric_columns or ()), *times]
    _check_one_role_each([*given, *ignored_columns])
    file = find_file(root, train, "train", source)
    rows = read_rows(file, form, given)
    if not rows:
        raise DataError(f"{file}: holds no rows")
    notes = [*rows.notes, *_absent_warning(rows, ignored_columns)]
    kind: str = target_type
    if target_type == "auto":
        kind, why = target_kind(rows, target)
        notes.append(f"target '{target}': a {kind}, for {why} (dataset.target_type)")
    column_roles = _roles(
        rows, numeric_columns, categorical_columns, ignored_columns, [target, *times], time_format, roles
    )
    inferred = column_roles.notes() if roles == "infer" else _index_warning(rows, column_roles.numbers)
    valid, skipped = valid_rows(rows, column_roles, target, kind, time, time_format)
    _check_has_features(file, column_roles, target)
    notes += [*inferred, *describe_missing(rows, column_roles)]
    for name in [*column_roles.numbers, *([target] if kind == "number" else [])]:
        notes += likely_sentinels(name, rows.numbers(name)[0], "missing=[...], a list of texts")

    groups = target if stratify and kind == "class" and time is None else None
    splits = split_rows(valid, time, val_fraction, 0.0 if test is not None else test_fraction, time_format, groups)
    if test is not None:
        tested = read_rows(find_file(root, test, "test", source), form, given)
        splits["test"], more = valid_rows(tested, column_roles, target, kind, None, time_format)
        notes, skipped = [*notes, *tested.notes], [*skipped, *more]

    features = FeatureEncoder.fit(splits["train"], column_roles.numbers, column_roles.categories, column_roles.dates)
    answer = TargetEncoder(splits["train"], target, kind)
    tensors: dict[str, _Split] = {name: (features(part), answer(part)) for name, part in splits.items()}
    properties = _properties(features, answer)
    claims = {"num_numeric": num_numeric, "cardinalities": cardinalities, "outputs": outputs}
    check_claims(claims | {"num_classes": num_classes, "target_std": target_std}, properties)
    return TensorDataset(
        splits=tensors,
        properties=properties | ({"target_type": kind} if target_type == "auto" else {}),
        description=_describe(properties, column_roles, target),
        spec={
            "kind": "bigmodel.inference.processors.tables.TableProcessor",
            **features.about(),
            **answer.about(),
            "columns": columns,
            "separator": separator,
            "comment": comment,
            "strip": strip,
            "missing": list(missing),
            **changed_fields(form, "encoding", "decimal", "header"),
        },
        fingerprint=fingerprint_tensors([tensor for pair in tensors.values() for tensor in pair]),
        notes=[*notes, *_class_notes(answer.classes, tensors, missing), *skipped],
    )


def _check_one_role_each(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"dataset: the column '{twice}' has two roles; it may have one")


def _absent_warning(rows: Table, ignored_columns: Sequence[str]) -> list[str]:
    absent = [name for name in ignored_columns if name not in rows.columns]
    return [f"warning: dataset.ignored_columns: there is no column {', '.join(map(repr, absent))}"] if absent else []


def _check_has_features(file: Path, roles: ColumnRoles, target: str) -> None:
    if roles.numbers or roles.categories or roles.dates:
        return
    why = "; ".join(f"'{name}': {reason}" for name, reason in roles.ignored.items())
    raise DataError(f"{file}: no column is left to predict '{target}' from{f' ({truncate(why, 300)})' if why else ''}")


def _properties(features: FeatureEncoder, answer: TargetEncoder) -> dict[str, Any]:
    """Return the sizes of inputs and outputs, which the model takes and the config may claim."""
    return {
        "num_numeric": len(features.features),
        "cardinalities": features.cardinalities,
        "outputs": len(answer.classes) or 1,
        "num_classes": len(answer.classes) or None,
        "target_std": None if answer.classes else answer.std,
    }


def _describe(properties: Mapping[str, Any], roles: ColumnRoles, target: str) -> str:
    classes, numbers = properties["num_classes"], properties["num_numeric"]
    what = format_count(classes, "class", "classes") if classes else f"one number ({target})"
    return f"{what}, {format_count(numbers, 'column')} of numbers and {len(roles.categories)} of categories"


def _class_notes(classes: Sequence[str], tensors: Mapping[str, _Split], missing: Sequence[str]) -> list[str]:
    """Return the classes' sizes in each split, and warnings of classes that look like mistakes."""
    if not classes:
        return []
    labels = {name: targets.tolist() for name, (_, targets) in tensors.items()}
    return [
        *class_counts.describe_counts("row", classes, labels),
        *class_counts.stand_ins(classes, missing),
        *class_counts.lists(classes),
    ]


def _roles(
    rows: Table,
    numeric_columns: Sequence[str] | None,
    categorical_columns: Sequence[str],
    ignored_columns: Sequence[str],
    taken: Sequence[str],
    time_format: str | None,
    roles: str,
) -> ColumnRoles:
    if roles == "infer":
        given: Mapping[str, Sequence[str]] = {
            "numbers": numeric_columns or (),
            "categories": categorical_columns,
            "ignored": [name for name in ignored_columns if name in rows.columns],
        }
        return infer_roles(rows, given, taken, time_format)
    known = {*categorical_columns, *ignored_columns, *taken}
    return ColumnRoles(
        [name for name in rows.columns if name not in known] if numeric_columns is None else [*numeric_columns],
        [*categorical_columns],
    )


def _index_warning(rows: Table, numbers: Sequence[str]) -> list[str]:
    found = {name: why_identifier(name, rows.numbers(name)[0].tolist(), len(rows)) for name in numbers}
    padded = {name: with_leading_zero(rows.texts(name)) for name in numbers}
    return [
        f"warning: column '{name}' has leading zeros, as '{text}', and counts as a number; if it holds codes set "
        f"dataset.categorical_columns=['{name}'], or dataset.ignored_columns"
        for name, text in padded.items()
        if text is not None
    ] + [
        f"warning: column '{name}' {'' if why.startswith('numbers') else 'is '}{why}, and is a feature; "
        f"dataset.ignored_columns=['{name}'] leaves it out"
        for name, why in found.items()
        if why
    ]
