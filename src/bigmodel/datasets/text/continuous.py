"""Text as one sequence of tokens, cut into windows, for language models.

The windows of an epoch follow each other without a gap, from a start that differs by epoch. Their order is a function
of (seed, epoch), as for all data, so a run resumes from any step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.constraints import Positive, PositiveInt, ProperFraction
from bigmodel.datasets.files.locations import find_data
from bigmodel.datasets.loading.claims import check_claims
from bigmodel.datasets.loading.splits import Splits
from bigmodel.datasets.loading.streaming import describe_placement, stream, to_device
from bigmodel.datasets.text.text_sources import TextSource
from bigmodel.datasets.text.token_files import cache_name, fingerprint_text, tokenize_cached
from bigmodel.datasets.text.tokenizers import CharTokenizer, Tokenizer, make_tokenizer
from bigmodel.errors import DataError
from bigmodel.formatting import format_count
from bigmodel.interfaces import Batch, LoaderOptions
from bigmodel.seeds import derive

__all__ = ["TextDataset", "names", "text", "tinyshakespeare"]

_COUNTED = 1 << 22  # tokens of the validation text whose bytes are counted; most texts have fewer

_SIGNED = {2: np.int16, 4: np.int32}  # by bytes
_ONES = {torch.uint8: 0xFF, torch.int16: 0xFFFF, torch.int32: 0xFFFF_FFFF}


@dataclass(frozen=True)
class TextDataset:
    """A `Dataset` of tokens (N,): windows of `context` tokens, and for each token the next one as its target.

    The last tokens, a fraction of `val_fraction`, are for validation.
    """

    tokens_N: NDArray[Any]
    tokenizer: Tokenizer
    context: int
    val_fraction: float
    fingerprint: str
    notes: Sequence[str] = ()  # lines about files passed over, or text that is no prose
    encoding: str | None = None  # of the files
    chat: Mapping[str, Any] | None = None  # template of the vocabulary, with its special tokens

    @cached_property
    def split_tokens(self) -> Mapping[str, NDArray[Any]]:
        """The tokens of each split."""
        first = int(len(self.tokens_N) * (1 - self.val_fraction))
        parts = {"train": self.tokens_N[:first], "val": self.tokens_N[first:]}
        return {name: part for name, part in parts.items() if name == "train" or len(part) > 1}

    @cached_property
    def properties(self) -> Mapping[str, Any]:
        """`vocab_size`, and `bytes_per_token` of the validation text."""
        counted = list(self.split_tokens.values())[-1][:_COUNTED]
        size = len(self.tokenizer.decode(counted.tolist()).encode("utf-8", "surrogatepass"))
        return {"vocab_size": self.tokenizer.size, "bytes_per_token": size / max(1, len(counted))}

    @property
    def description(self) -> str:
        return f"{len(self.tokens_N):,} tokens of {self.tokenizer.size:,}, {self.context} a sample"

    def processor_spec(self) -> Mapping[str, Any]:
        kind = "bigmodel.inference.processors.continuation.TextGenerationProcessor"
        known = {"encoding": self.encoding, "chat": self.chat}
        spec = {"kind": kind, "tokenizer": dict(self.tokenizer.spec), "context": self.context}
        return spec | {key: value for key, value in known.items() if value}

    def sample_batch(self, count: int) -> Batch:
        starts_N = torch.arange(count) % max(1, len(self.split_tokens["train"]) - self.context)
        return _windows(_tensor(self.split_tokens["train"]), starts_N, self.context)

    def loader(self, options: LoaderOptions) -> TextLoader:
        return TextLoader(self, options)


class TextLoader:
    """The `Loader` of a `TextDataset`. Sample ids number its windows, which each epoch shifts by less than a window.

    A split of more than `resident_bytes` is streamed by `workers`.
    """

    def __init__(self, dataset: TextDataset, options: LoaderOptions) -> None:
        self._context = dataset.context
        self._device = options.device
        self._options = options
        parts = {name: _tensor(part) for name, part in dataset.split_tokens.items()}
        num_tokens = len(parts["train"])
        num_windows = (num_tokens - 1) // self._context
        if num_windows < 1:
            there = format_count(num_tokens, "training token")
            raise DataError(f"dataset: {there}, too few for one window of context={self._context}")
        num_windows -= num_windows > 1  # room for the epochs to begin elsewhere
        self._shifts = min(num_tokens - 1 - num_windows * self._context, self._context - 1) + 1
        sizes = {name: -(-(len(part) - 1) // self._context) for name, part in parts.items()}
        self._splits = Splits(sizes | {"train": num_windows}, 0.0, options)
        self.splits = self._splits.counts
        self.steps_per_epoch = self._splits.steps_per_epoch
        self._resident = {name for name, part in parts.items() if part.nbytes <= options.resident_bytes}
        self._readers = {  # on a CPU mapped tokens stay mapped
            name: _ReadWindows(part.to(options.device) if name in self._resident else part, self._context)
            for name, part in parts.items()
        }
        is_resident = "train" in self._resident
        mapped = isinstance(dataset.tokens_N, np.memmap) and not (is_resident and options.device.type != "cpu")
        self.uses_workers = not is_resident and options.workers > 0
        self.describe_placement = describe_placement(
            parts["train"].nbytes, options.resident_bytes, options.workers, mapped
        )

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        samples, same = itertools.tee(self._splits.train_indices(first, last))
        starts = (indices * self._context + self._shift(step) for step, indices in enumerate(samples, first))
        for batch, indices in zip(self._batches("train", starts), same, strict=True):
            yield batch._replace(sample_ids=indices)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Every token after the first is a target once; padding of the last window is -1."""
        source, batches = self._splits.eval_indices(split)
        return self._batches(source, (indices * self._context for indices in batches))

    def _shift(self, step: int) -> int:
        """Return the token at which the windows of this step's epoch begin."""
        epoch = 0 if self._options.overfit_batch else step // self.steps_per_epoch
        return derive(self._options.seed, "shift", epoch) % self._shifts

    def _batches(self, name: str, starts: Iterator[Tensor]) -> Iterator[Batch]:
        read = self._readers[name]
        if name in self._resident:
            return (Batch(*read(starts_N)) for starts_N in starts)
        return (Batch(*pair) for _, pair in stream(read, starts, self._device, self._options.workers))


@dataclass(frozen=True)
class _ReadWindows:
    """First tokens (N,) of windows in, inputs and targets out, on the device of the tokens."""

    tokens: Tensor
    context: int

    def __call__(self, starts_N: Tensor) -> tuple[Tensor, Tensor]:
        batch = _windows(self.tokens, to_device(starts_N, self.tokens.device), self.context)
        return batch.inputs, batch.targets


def _windows(tokens: Tensor, starts_N: Tensor, context: int) -> Batch:
    places_NT = starts_N[:, None] + torch.arange(context + 1, device=starts_N.device)
    taken_NT = tokens[places_NT.clamp(max=len(tokens) - 1)].long() & _ONES[tokens.dtype]
    taken_NT.masked_fill_(places_NT >= len(tokens), -1)
    return Batch(taken_NT[:, :-1], taken_NT[:, 1:])


def _tensor(part_N: NDArray[Any]) -> Tensor:
    """View as a tensor of signed numbers, the only ones that torch indexes; `_windows` undoes the sign."""
    return torch.from_numpy(part_N.view(_SIGNED.get(part_N.dtype.itemsize, np.uint8)))


def text(
    path: str,
    tokenizer: Literal["byte", "char", "bpe"],
    vocabulary: str,
    cache_dir: str,
    context: PositiveInt,
    val_fraction: ProperFraction,
    vocab_size: PositiveInt | None = None,
    bytes_per_token: Positive | None = None,
    text_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> TextDataset:
    """Language modelling on a text file, the .txt files of a folder, a tar of them, or the column of a table.

    `text_column` names the column of a table, or of a folder's tables; each row ends a line.

    Raises:
        ConfigError: there is no such encoding, or the number of tokens is not the tokenizer's.
        DataError: there is no text, or no vocabulary of byte pairs.
    """
    source = TextSource(Path(path), text_column, encoding, separator)
    marked, size, characters = fingerprint_text(source.read_chunks())
    if not size:
        raise DataError(f"{path}: holds no text")
    found = make_tokenizer(tokenizer, vocabulary, characters, vocab_size, source.read_chunks)
    made, notes = found.tokenizer, [*source.notes, *found.notes]
    check_claims({"vocab_size": vocab_size}, {"vocab_size": made.size})
    tokens_N = tokenize_cached(source.read_chunks, made, size, Path(cache_dir) / cache_name(marked, made))
    return TextDataset(tokens_N, made, context, val_fraction, marked, notes, encoding, found.chat)


def tinyshakespeare(
    data_dir: str,
    tokenizer: Literal["byte", "char", "bpe"],
    vocabulary: str,
    cache_dir: str,
    context: PositiveInt,
    val_fraction: ProperFraction,
    vocab_size: PositiveInt | None = None,
    bytes_per_token: Positive | None = None,
) -> TextDataset:
    """A million characters of Shakespeare (Karpathy 2015), in one file. Raises DataError if it is missing."""
    path = find_data(data_dir, "tinyshakespeare.txt", ["text"], advice="put it there, or set data_dir")
    return text(str(path), tokenizer, vocabulary, cache_dir, context, val_fraction, vocab_size, bytes_per_token)


def names(
    path: str | None,
    data_dir: str,
    context: PositiveInt,
    val_fraction: ProperFraction,
    vocab_size: PositiveInt | None = None,
    bytes_per_token: Positive | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
) -> TextDataset:
    """Names, or other words, one per line or row, as characters; shuffled in the same order for every seed.

    Raises:
        ConfigError: the number of tokens is not that of the characters.
        DataError: there is no such file.
    """
    advice = "put it there, or set data_dir or dataset.path"
    file = find_data(data_dir, "names.txt", ["text"], advice=advice) if path is None else Path(path)
    source = TextSource(file, text_column, encoding)
    lines = sorted(line.strip() for line in "".join(source.read_chunks()).splitlines() if line.strip())
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()
    joined = "\n".join(["", *(lines[number] for number in order), ""])
    marked, _, characters = fingerprint_text([joined])
    made = CharTokenizer(characters)
    check_claims({"vocab_size": vocab_size}, {"vocab_size": made.size})
    return TextDataset(
        made.encode(joined).astype(np.int32), made, context, val_fraction, marked, source.notes, encoding
    )
