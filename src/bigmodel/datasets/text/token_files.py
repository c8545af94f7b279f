"""Encode text files once as one sequence of tokens, cached in a file that is mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.text.tokenizers import Tokenizer
from bigmodel.safe_files import TEMP_PREFIX, fsync_path

_KEPT_FROM = 16 << 20  # bytes of text: less is encoded again as fast as it is read, but for byte pairs


def fingerprint_text(parts: Iterable[str]) -> tuple[str, int, str]:
    """Hash of a text, its size in bytes of UTF-8, and its characters, sorted."""
    state = hashlib.md5(usedforsecurity=False)
    size = 0
    characters = set[str]()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        state.update(content)
        size += len(content)
        characters.update(part)
    return f"md5:{state.hexdigest()}", size, "".join(sorted(characters))


def tokenize_cached(parts: Callable[[], Iterable[str]], tokenizer: Tokenizer, size: int, cache: Path) -> NDArray[Any]:
    """Return the tokens (N,) of a text of `size` bytes, which `parts` reads from its start, in as few bytes each as
    will do.

    Where encoding takes long they are kept in the file `cache`, which is whole or not there; where that cannot be
    written or read they are in memory.
    """
    kind = np.uint8 if tokenizer.size <= 1 << 8 else np.uint16 if tokenizer.size <= 1 << 16 else np.uint32
    encoded = (tokenizer.encode(part).astype(kind) for part in parts())
    if size < _KEPT_FROM and tokenizer.spec["name"] != "bpe":
        return np.concatenate([np.zeros(0, kind), *encoded])
    try:
        if not cache.is_file():
            scratch = cache.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")
            cache.parent.mkdir(parents=True, exist_ok=True)
            try:
                with scratch.open("xb") as file:
                    for tokens in encoded:
                        file.write(tokens.tobytes())
                fsync_path(scratch)
                os.replace(scratch, cache)
            finally:
                scratch.unlink(missing_ok=True)
        return np.memmap(cache, dtype=kind, mode="c") if cache.stat().st_size else np.zeros(0, kind)
    except OSError:  # the folder or the file may also be another user's
        return np.concatenate([np.zeros(0, kind), *(tokenizer.encode(part).astype(kind) for part in parts())])


def cache_name(text: str, tokenizer: Tokenizer) -> str:
    """Return the name of the cache file of a text, by its fingerprint, and a tokenizer."""
    key = json.dumps([text, tokenizer.spec], sort_keys=True).encode()
    return f"tokens-{hashlib.md5(key, usedforsecurity=False).hexdigest()}.bin"
