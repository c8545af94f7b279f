"""Convert text to token ids and back: bytes, characters, words, the parts of SMILES strings, or the byte pairs of a
published vocabulary (extra `text`).

A checkpoint keeps a tokenizer's `spec`, as JSON; `tokenizer_from_spec` builds the same tokenizer from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.files.locations import find_beside_shared
from bigmodel.datasets.text.smiles import SmilesTokenizer
from bigmodel.datasets.text.word_tokenizer import KnownCharTokenizer, WordTokenizer
from bigmodel.errors import ConfigError, DataError
from bigmodel.safe_files import read_bytes

_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # as OpenAI and as others name them


class Tokenizer(Protocol):
    """`size` is the number of tokens; `encode` raises DataError for text that it has no tokens for."""

    @property
    def size(self) -> int: ...

    @property
    def spec(self) -> Mapping[str, Any]: ...

    def encode(self, text: str) -> NDArray[np.int64]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class ByteTokenizer:
    """UTF-8: 256 tokens for any text."""

    size = 256
    spec: Mapping[str, Any] = {"name": "byte"}

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")


class CharTokenizer:
    """One token for each of these characters, which are all of the training text."""

    def __init__(self, characters: str) -> None:
        if not characters or sorted(set(characters)) != list(characters):
            raise ValueError("tokenizer: its characters must be sorted, and none twice")
        self._codes = np.array([ord(c) for c in characters])
        self.size = len(characters)
        self.spec = {"name": "char", "characters": characters}

    def encode(self, text: str) -> NDArray[np.int64]:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(self._codes, codes).clip(max=self.size - 1)
        wrong = np.flatnonzero(self._codes[places] != codes)
        if len(wrong):
            raise DataError(f"text: there is no token for {text[wrong[0]]!r}; the training text has no such character")
        return places.astype(np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(code) for code in self._codes[list(tokens)])


class BPETokenizer:
    """Byte-level byte pairs (Sennrich et al. 2016; Radford et al. 2019), by the `tokenizers` library's own JSON."""

    def __init__(self, definition: str) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise ConfigError("dataset.tokenizer: bpe needs tokenizers; pip install 'bigmodel-train[text]'") from error
        try:
            self._library = Library.from_str(definition)
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"tokenizer: its definition cannot be read: {error}") from error
        self.size = int(self._library.get_vocab_size())
        self.spec = {"name": "bpe", "definition": definition}

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array(self._library.encode(text).ids, dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._library.decode(list(tokens)))


def byte_pairs(folder: Path) -> BPETokenizer:
    """Load the vocabulary of a folder that holds encoder.json and vocab.bpe, as GPT-2's authors publish it.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    found = [(folder / one, folder / other) for one, other in _FILES]
    pair = next((pair for pair in found if pair[0].is_file() and pair[1].is_file()), None)
    if pair is None:
        raise DataError(f"dataset.vocabulary: there is no encoder.json with vocab.bpe in '{folder}'")
    try:
        vocabulary = json.loads(read_bytes(pair[0]).decode("utf-8-sig"))
        lines = read_bytes(pair[1]).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: its vocabulary cannot be read: {error}; get it again") from error
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return BPETokenizer(json.dumps({"version": "1.0", "pre_tokenizer": level, "decoder": level, "model": model}))


def make_tokenizer(
    name: Literal["byte", "char", "bpe"], vocabulary: str | None = None, characters: str | None = None
) -> Tokenizer:
    """Build the tokenizer of this name, from the characters or the folder of a vocabulary.

    Raises:
        DataError: there is no vocabulary of byte pairs.
    """
    match name:
        case "byte":
            return ByteTokenizer()
        case "char":
            return CharTokenizer(characters or "")
        case "bpe":
            return byte_pairs(find_beside_shared(vocabulary or "."))


def tokenizer_from_spec(spec: Mapping[str, Any]) -> Tokenizer:
    """Rebuild the tokenizer of a checkpoint. Raises ValueError for an invalid spec."""
    match dict(spec):
        case {"name": "byte"}:
            return ByteTokenizer()
        case {"name": "char", "characters": str(characters)}:
            return CharTokenizer(characters)
        case {"name": "word", "words": list(words), "rule": 2} if all(isinstance(word, str) for word in words):
            return WordTokenizer(words, 2)
        case {"name": "word", "words": list(words), **rest} if not rest and all(isinstance(w, str) for w in words):
            return WordTokenizer(words)
        case {"name": "known_char", "characters": str(characters)}:
            return KnownCharTokenizer(characters)
        case {"name": "bpe", "definition": str(definition)}:
            return BPETokenizer(definition)
        case {"name": "smiles"}:
            return SmilesTokenizer()
    raise ValueError("tokenizer: must be byte, char, known_char, word, bpe or smiles, each with its own fields")
