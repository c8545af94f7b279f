"""Pairs of source and target texts, for translation: from your own tables, or catalogues of gettext."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.datasets.files.gettext import find_catalogue, read_catalogue
from bigmodel.datasets.files.table_files import find_file
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.splits import holdout_split
from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.datasets.text.labelled_rows import LabelledTextReader
from bigmodel.datasets.text.tokenizers import make_tokenizer
from bigmodel.errors import DataError
from bigmodel.formatting import format_count
from bigmodel.padding import pad

__all__ = ["gettext_pairs", "parallel_text"]

_Pairs = Sequence[tuple[str, str]]


def parallel_text(
    data_dir: str,
    train: str,
    source_column: str,
    target_column: str,
    tokenizer: Literal["byte", "char", "bpe"],
    vocabulary: str,
    context: PositiveInt,
    val_fraction: ProperFraction,
    test_fraction: ProperFraction = 0.0,
    val: str | None = None,
    test: str | None = None,
    columns: Sequence[str] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
    vocab_size: PositiveInt | None = None,
    characters: str | None = None,
) -> TensorDataset:
    """Files with a header, below `data_dir`: `.tsv` with tabs and no quotes, others CSV. One tokenizer serves both
    columns; `char` knows all characters of all files.

    Inputs (N, 2 * context + 1) are the source's tokens, filled up with -1 to `context`, then the target's after the
    token that begins it, which is the number of the vocabulary's tokens; targets (N, context + 1) are the target's
    tokens and the same token as its end. Pairs with more tokens on a side than `context` are left out. Without `val` or
    `test` that fraction is cut from the training pairs, the same for every seed; pairs whose sources hold the same
    words stay together, so that none is trained on and tested too.

    Raises:
        ConfigError: the number of tokens, or the characters, are not the data's.
        DataError: a file is missing or has bad rows; each is named by file, line and column.
    """
    reader = LabelledTextReader([source_column], target_column, separator, encoding, broken, "pairs", columns)
    named = {"train": train, "val": val, "test": test}
    splits: dict[str, _Pairs] = {}
    for split, name in named.items():
        if name is not None:
            file = find_file(data_dir, name, split, None)
            splits[split] = [(row.text, row.label) for row in reader.table(file)]
    notes = [*reader.notes]
    made = _dataset(splits, val_fraction, test_fraction, tokenizer, vocabulary, context, vocab_size, characters)
    written = {"text_column": [source_column], "columns": columns, "separator": separator, "encoding": encoding}
    return replace(made, spec={**made.spec, **written}, notes=notes)


def gettext_pairs(
    folder: str,
    language: str,
    names: Sequence[str],
    package: str | None,
    tokenizer: Literal["byte", "char", "bpe"],
    vocabulary: str,
    context: PositiveInt,
    val_fraction: ProperFraction,
    test_fraction: ProperFraction,
    vocab_size: PositiveInt | None = None,
    characters: str | None = None,
) -> TensorDataset:
    """Translations in gettext's catalogues `folder`/`language`/LC_MESSAGES/NAME.mo, encoded as by `parallel_text`.

    A message in several catalogues has the translation of the first.

    Raises:
        ConfigError: the number of tokens, or the characters, are not the data's.
        DataError: a catalogue is missing or damaged.
    """
    pairs: dict[str, str] = {}
    for name in names:
        pairs = dict(read_catalogue(find_catalogue(folder, language, name, package))) | pairs
    splits = {"train": sorted(pairs.items())}
    return _dataset(splits, val_fraction, test_fraction, tokenizer, vocabulary, context, vocab_size, characters)


def _dataset(
    given: Mapping[str, _Pairs],
    val_fraction: float,
    test_fraction: float,
    tokenizer: Literal["byte", "char", "bpe"],
    vocabulary: str,
    context: int,
    vocab_size: int | None,
    characters: str | None,
) -> TensorDataset:
    splits = dict(given)
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        kept, out = _cut(splits["train"], 0.0 if split in splits else fraction)
        splits |= {"train": kept, split: out} if out else {}
    letters = "".join(sorted({letter for part in splits.values() for pair in part for letter in "".join(pair)}))
    made = make_tokenizer(tokenizer, vocabulary, letters).tokenizer
    properties = {"vocab_size": made.size, "characters": letters if tokenizer == "char" else None}
    check_claims({"vocab_size": vocab_size, "characters": characters}, properties)
    tensors = {}
    left_out = 0
    for split, part in splits.items():
        encoded = [[torch.from_numpy(made.encode(text)) for text in pair] for pair in part]
        fitting = [pair for pair in encoded if max(map(len, pair)) <= context]
        left_out += len(encoded) - len(fitting)
        if not fitting:
            raise DataError(f"dataset: no pair of the {split} split has at most context={context} tokens on each side")
        end = torch.tensor([made.size])
        begun_NT = pad([torch.cat([end, target]) for _, target in fitting], context + 1)
        targets_NT = pad([torch.cat([target, end]) for _, target in fitting], context + 1)
        tensors[split] = torch.cat([pad([source for source, _ in fitting], context), begun_NT], dim=1), targets_NT
    return TensorDataset(
        tensors,
        properties=properties,
        description=f"pairs of up to {context} tokens of {made.size:,} "
        f"({format_count(left_out, 'longer one')} left out)",
        spec={
            "kind": "bigmodel.inference.processors.translations.TranslationProcessor",
            "tokenizer": dict(made.spec),
            "context": context,
        },
        fingerprint=fingerprint_tensors([tensor for pair in tensors.values() for tensor in pair]),
    )


def _cut(pairs: _Pairs, fraction: float) -> tuple[_Pairs, _Pairs]:
    """Split pairs into those to keep and those to hold out, by the words of their sources."""
    words = [" ".join(sorted(re.findall(r"\w+", source.lower()))) for source, _ in pairs]
    groups = sorted(set(words))
    held = {groups[number] for number in holdout_split(len(groups), fraction)[1].tolist()}
    both = list(zip(pairs, words, strict=True))
    return [pair for pair, key in both if key not in held], [pair for pair, key in both if key in held]
