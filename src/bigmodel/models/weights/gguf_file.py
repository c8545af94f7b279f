"""Read GGUF, the one-file format of llama.cpp: settings and vocabulary, and quantized tensors as float32.

The header is read here, bounded in size and without torch; the `gguf` package (extra `hub`) knows the quantizations.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.safe_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # by GGUF type
_STRING, _ARRAY = 8, 9
_LARGEST_TEXT, _LARGEST_ARRAY, _MOST_SETTINGS, _MOST_TENSORS = 1 << 24, 1 << 22, 1 << 14, 50_000
_PLAIN = {0: "float32", 1: "float16", 30: "bfloat16"}  # tensor types without blocks


@dataclass(frozen=True)
class StoredTensor:
    """Place of a tensor in the file; `shape` has the rows first, as torch does."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class GGUF:
    """Header of a file: its settings by name, and where its tensors lie."""

    path: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a setting of the file's architecture, as `block_count`."""
        return self.settings.get(f"{self.settings.get('general.architecture')}.{name}", default)


def read_header(path: Path) -> GGUF:
    """Read settings and the list of tensors; what the file claims is held against limits and against its size.

    Raises:
        ValueError: it is no GGUF file, or damaged.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(4) != b"GGUF" or _number(file, "I") not in (2, 3):
                raise ValueError("is no GGUF file of version 2 or 3")
            num_tensors, num_settings = _number(file, "Q"), _number(file, "Q")
            if num_tensors > _MOST_TENSORS or num_settings > _MOST_SETTINGS:
                raise ValueError(f"names {num_tensors} tensors and {num_settings} settings, which is too many")
            settings = {_text(file): _value(file, _number(file, "I"), size) for _ in range(num_settings)}
            found = [(_text(file), _tensor(file)) for _ in range(num_tensors)]
            alignment = settings.get("general.alignment", 32)
            if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16:
                raise ValueError(f"general.alignment: {alignment!r} is no alignment")
            first = -(-file.tell() // alignment) * alignment
    except (struct.error, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as GGUF: its header is damaged") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as GGUF: {error}") from error
    tensors = {name: StoredTensor(one.shape, one.type, first + one.offset) for name, one in found}
    if any(one.offset >= size for one in tensors.values()):
        raise ValueError(f"{path}: is truncated; get it again")
    return GGUF(path, settings, tensors)


def _number(file: BufferedReader, code: str) -> Any:
    (value,) = struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))
    return value


def _text(file: BufferedReader) -> str:
    length = _number(file, "Q")
    if length > _LARGEST_TEXT:
        raise ValueError(f"a text of {length} bytes is too long")
    content = file.read(length)
    if len(content) < length:
        raise EOFError
    return content.decode("utf-8")


def _value(file: BufferedReader, kind: int, size: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        if kind not in _NUMBERS:
            raise ValueError(f"there is no type {kind}")
        return _number(file, _NUMBERS[kind])
    item, count = _number(file, "I"), _number(file, "Q")
    if count > min(_LARGEST_ARRAY, size) or (item != _STRING and item not in _NUMBERS):
        raise ValueError(f"an array of {count} values of type {item} is not read")
    if item == _STRING:
        return [_text(file) for _ in range(count)]
    code = f"<{count}{_NUMBERS[item]}"
    return list(struct.unpack(code, file.read(struct.calcsize(code))))


def _tensor(file: BufferedReader) -> StoredTensor:
    dimensions = _number(file, "I")
    if not 0 < dimensions <= 4:
        raise ValueError(f"a tensor of {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
    kind, offset = _number(file, "I"), _number(file, "Q")
    return StoredTensor(tuple(reversed(shape)), kind, offset)


def read_tensors(header: GGUF) -> tuple[dict[str, Tensor], Sequence[str]]:
    """Return the tensors by llama.cpp's names, dequantized to float32, and the names of their quantizations.

    Raises:
        ValueError: the `gguf` package is missing, a quantization is unknown, or the file is truncated.
    """
    import numpy as np
    import torch

    kinds = {one.type for one in header.tensors.values()}
    sizes: Mapping[int, tuple[int, int]] = {}
    dequantize: Any = None
    if kinds - _PLAIN.keys():
        sizes, dequantize = _quantizations(header.path)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 4 * sum(math.prod(one.shape) for one in header.tensors.values()) > memory:
        raise ValueError(f"{header.path}: its tensors are larger than this machine's memory")
    content = np.memmap(header.path, dtype=np.uint8, mode="r")
    tensors: dict[str, Tensor] = {}
    for name, one in header.tensors.items():
        count = math.prod(one.shape)
        if one.type not in _PLAIN and one.type not in sizes:
            raise ValueError(f"{header.path}: {name}: its quantization (type {one.type}) is unknown")
        block, block_bytes = (1, 4 if one.type == 0 else 2) if one.type in _PLAIN else sizes[one.type]
        num_bytes = count // block * block_bytes
        raw = content[one.offset : one.offset + num_bytes]
        if len(raw) < num_bytes or one.shape[-1] % block:
            raise ValueError(f"{header.path}: {name}: is truncated; get the file again")
        if one.type in _PLAIN:
            dtype = getattr(torch, _PLAIN[one.type])
            tensors[name] = torch.frombuffer(bytearray(raw), dtype=dtype).float().view(one.shape)
        else:
            rows = raw.reshape(*one.shape[:-1], -1)
            tensors[name] = torch.from_numpy(np.ascontiguousarray(dequantize(rows, one.type)))
    named = sorted(_PLAIN[kind] if kind in _PLAIN else _quantization_name(kind) for kind in kinds)
    return tensors, named


def _quantizations(path: Path) -> tuple[Mapping[int, tuple[int, int]], Any]:
    """Return block size and bytes of a block by type, and the function that dequantizes rows of a type."""
    try:
        from gguf import GGMLQuantizationType
        from gguf.constants import GGML_QUANT_SIZES
        from gguf.quants import dequantize
    except ImportError as error:
        raise ValueError(f"{path}: its quantized tensors need gguf; pip install 'bigmodel-train[hub]'") from error

    def rows(values: Any, kind: int) -> Any:
        try:
            return dequantize(values, GGMLQuantizationType(kind))
        except NotImplementedError as error:
            raise ValueError(f"{path}: {GGMLQuantizationType(kind).name} cannot be dequantized by gguf") from error

    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}, rows


def _quantization_name(kind: int) -> str:
    from gguf import GGMLQuantizationType

    return str(GGMLQuantizationType(kind).name)
