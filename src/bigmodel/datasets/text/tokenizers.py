"""Convert text to token ids and back: bytes, characters, words, the parts of SMILES strings, or byte pairs, published
or learned (extra `text`).

A checkpoint keeps a tokenizer's `spec`, as JSON; `tokenizer_from_spec` builds the same tokenizer from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.files.locations import find_beside_shared
from bigmodel.datasets.text.published_tokenizers import Chat, is_published, read_published
from bigmodel.datasets.text.smiles import SmilesTokenizer
from bigmodel.datasets.text.word_tokenizer import KnownCharTokenizer, WordTokenizer
from bigmodel.errors import ConfigError, DataError
from bigmodel.safe_files import read_bytes

_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # as OpenAI and as others name them
_BYTES = 256


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
    """Byte-level byte pairs (Sennrich et al. 2016; Radford et al. 2019), by the `tokenizers` library's own JSON.

    A model may have a larger `size` than there are tokens. Special tokens are found in a text, but none is added.
    """

    def __init__(self, definition: str, size: int | None = None) -> None:
        _, library = _import_library()
        try:
            self._library = library.from_str(definition)
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"tokenizer: its definition cannot be read: {error}") from error
        known = int(self._library.get_vocab_size())
        if size is not None and size < known:
            raise ValueError(f"tokenizer: has {known} tokens, more than {size}")
        self.size = known if size is None else size
        sizes = {} if size in (None, known) else {"size": size}
        self.spec: Mapping[str, Any] = {"name": "bpe", "definition": definition} | sizes

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array(self._library.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._library.decode(list(tokens)))


class PublishedTokenizer(BPETokenizer):
    """A published vocabulary, with the special tokens around a text that its model was trained with, as [CLS]."""

    def __init__(self, definition: str, size: int | None = None) -> None:
        super().__init__(definition, size)
        self.spec = {**self.spec, "name": "published"}

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array(self._library.encode(text).ids, dtype=np.int64)


def published_tokenizer(path: Path, size: int | None, context: int) -> PublishedTokenizer:
    """Load a published vocabulary for texts of at most `context` tokens, special ones included.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    if not is_published(path):
        raise DataError(f"dataset.vocabulary: there is no tokenizer.json in '{path}'; name a folder with one")
    definition = json.loads(read_published(path)[0])
    definition["truncation"] = {
        "max_length": context,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }
    try:
        return PublishedTokenizer(json.dumps(definition, ensure_ascii=False), size)
    except ValueError as error:
        raise DataError(f"dataset.vocabulary: {path}: {error}") from error


def _import_library() -> tuple[Any, Any]:
    """Return the `tokenizers` library, and its class of tokenizers."""
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError("dataset.tokenizer: bpe needs tokenizers; pip install 'bigmodel-train[text]'") from error
    return tokenizers, tokenizers.Tokenizer


def _byte_pairs(vocabulary: Path, merges: Path) -> BPETokenizer:
    """Load a vocabulary as GPT-2's authors publish it. Raises DataError if it cannot be read."""
    try:
        tokens = json.loads(read_bytes(vocabulary).decode("utf-8-sig"))
        lines = read_bytes(merges).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{vocabulary.parent}: its vocabulary cannot be read: {error}; get it again") from error
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": tokens, "merges": pairs}
    return BPETokenizer(json.dumps({"version": "1.0", "pre_tokenizer": level, "decoder": level, "model": model}))


def load_vocabulary(path: Path, size: int | None = None) -> tuple[BPETokenizer, Chat | None] | None:
    """Load a published vocabulary, with its chat template: a tokenizer.json, a GGUF file, or a folder that holds one or
    encoder.json and vocab.bpe; None where there is none. `size` is that of the model.

    Raises:
        DataError: a file cannot be read.
    """
    pairs = [(path / one, path / other) for one, other in _FILES]
    found = [pair for pair in pairs if pair[0].is_file() and pair[1].is_file()]
    if is_published(path) and pairs[0] not in found:
        definition, chat = read_published(path)
        try:
            return BPETokenizer(definition, size), chat
        except ValueError as error:
            raise DataError(f"dataset.vocabulary: {path}: {error}") from error
    return (_byte_pairs(*found[0]), None) if found else None


def learn_byte_pairs(texts: Iterable[str], size: int) -> BPETokenizer:
    """Learn a vocabulary of `size` byte pairs from texts; any text can be written in it.

    Raises:
        ConfigError: the texts hold fewer pairs, or the size is less than that of all bytes.
    """
    library, tokenizer_class = _import_library()
    if size < _BYTES:
        raise ConfigError(f"dataset.vocab_size: byte pairs are at least the {_BYTES} bytes, got {size}")
    learned = tokenizer_class(library.models.BPE())
    learned.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    learned.train_from_iterator(texts, trainer)
    made = BPETokenizer(learned.to_str())
    if made.size != size:
        raise ConfigError(f"dataset.vocab_size: this text has {made.size} byte pairs at most, got {size}; set fewer")
    return made


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, the chat template that came with it, and lines about what was learned."""

    tokenizer: Tokenizer
    chat: Chat | None = None
    notes: Sequence[str] = ()


def make_tokenizer(
    name: Literal["byte", "char", "bpe"],
    vocabulary: str | None = None,
    characters: str | None = None,
    size: int | None = None,
    texts: Callable[[], Iterable[str]] = tuple,
) -> Vocabulary:
    """Build the tokenizer of this name, from the characters or a published vocabulary.

    Where no published vocabulary has `size` byte pairs, as many are learned from `texts`.

    Raises:
        ConfigError: the texts hold too few byte pairs.
        DataError: there is no vocabulary of byte pairs, and no size to learn one of.
    """
    match name:
        case "byte":
            return Vocabulary(ByteTokenizer())
        case "char":
            return Vocabulary(CharTokenizer(characters or ""))
        case "bpe":
            folder = find_beside_shared(vocabulary or ".")
            found = load_vocabulary(folder, size)
            if found is not None and size in (None, found[0].size):
                return Vocabulary(*found)
            if size is not None:
                return Vocabulary(learn_byte_pairs(texts(), size), notes=[f"tokenizer: {size} byte pairs of this text"])
            raise DataError(
                f"dataset.vocabulary: there is no tokenizer.json, and no encoder.json with vocab.bpe, in '{folder}'; "
                "set dataset.vocab_size=8000 to learn one from this text"
            )


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
        case {"name": "bpe", "definition": str(definition), **rest} if not {*rest} - {"size"}:
            return BPETokenizer(definition, rest.get("size"))
        case {"name": "published", "definition": str(definition), **rest} if not {*rest} - {"size"}:
            return PublishedTokenizer(definition, rest.get("size"))
        case {"name": "smiles"}:
            return SmilesTokenizer()
    names = "byte, char, known_char, word, bpe, published or smiles"
    raise ValueError(f"tokenizer: must be {names}, each with its own fields")
