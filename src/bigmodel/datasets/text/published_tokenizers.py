"""Read the tokenizer and the chat template of open weights: of a folder with tokenizer.json, or of a GGUF file.

Both become the `tokenizers` library's own JSON, which a checkpoint keeps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigmodel.errors import DataError
from bigmodel.models.weights.gguf_file import read_header
from bigmodel.safe_files import read_bytes

Chat = dict[str, Any]

_NAME = "tokenizer.json"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens that are matched as they stand
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
_WORDS += r"\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def is_published(path: Path) -> bool:
    """Return whether a path is a tokenizer.json, a folder with one, or a GGUF file."""
    return path.suffix == ".gguf" or path.name == _NAME or (path / _NAME).is_file()


def read_published(path: Path) -> tuple[str, Chat | None]:
    """Return the tokenizer's definition as JSON, and what a chat needs: `template`, special tokens by name, and `stop`,
    the tokens that end an answer. None where there is no template.

    Raises:
        DataError: a file is missing or damaged, or the vocabulary is of a kind that is not read.
    """
    try:
        return _of_gguf(path) if path.suffix == ".gguf" else _of_folder(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"dataset.vocabulary: {path}: its tokenizer cannot be read: {error}") from error


def _of_folder(path: Path) -> tuple[str, Chat | None]:
    folder = path.parent if path.name == _NAME else path
    definition = _read_json(folder / _NAME)
    definition |= {"truncation": None, "padding": None}  # of the sentences it was made for
    settings = _read_json(folder / "tokenizer_config.json", needed=False)
    special = {name: _content(settings[name]) for name in _SPECIAL if settings.get(name) is not None}
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {one["name"]: one["template"] for one in template}.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = read_bytes(folder / "chat_template.jinja").decode("utf-8")
    ids = {one["content"]: one["id"] for one in definition.get("added_tokens", ())}
    stop = [
        number
        for name in ("config.json", "generation_config.json")
        for number in _numbers(_read_json(folder / name, needed=False).get("eos_token_id"))
    ]
    stop += [ids[special["eos_token"]]] if special.get("eos_token") in ids else []
    return json.dumps(definition, ensure_ascii=False), _chat(template, special, stop)


def _of_gguf(path: Path) -> tuple[str, Chat | None]:
    header = read_header(path)
    vocabulary = {
        name.removeprefix("tokenizer.ggml."): value
        for name, value in header.settings.items()
        if name.startswith("tokenizer.ggml.")
    }
    if vocabulary.get("model") != "gpt2":
        raise ValueError(f"a vocabulary of type {vocabulary.get('model')!r} is not read, only byte pairs (gpt2)")
    tokens, kinds = vocabulary["tokens"], vocabulary.get("token_type", [])
    matched = {number for number, kind in enumerate(kinds) if kind in (_CONTROL, _USER_DEFINED)}
    definition = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": tokens[number], "special": kinds[number] == _CONTROL}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for number in sorted(matched)
        ],
        **_pre_tokenizer(str(vocabulary.get("pre"))),
        "decoder": _BYTES | {"use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in vocabulary["merges"]],
            "ignore_merges": vocabulary.get("pre") == "llama-bpe",
        },
    }
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    numbers = {name: vocabulary.get(f"{key}_token_id") for name, key in names.items()}
    special = {name: tokens[number] for name, number in numbers.items() if isinstance(number, int)}
    stop = _numbers([vocabulary[f"{key}_token_id"] for key in ("eos", "eot") if f"{key}_token_id" in vocabulary])
    template = header.settings.get("tokenizer.chat_template")
    return json.dumps(definition, ensure_ascii=False), _chat(template, special, stop)


def _pre_tokenizer(name: str) -> dict[str, Any]:
    """Return how text is cut before byte pairs are joined, by llama.cpp's name for it."""
    nothing = {"normalizer": None}
    whole: dict[str, Any] = _BYTES | {"use_regex": True}
    match name:
        case "gpt-2" | "default":
            return nothing | {"pre_tokenizer": whole}
        case "smollm":
            parts: list[dict[str, Any]] = [{"type": "Digits", "individual_digits": True}, whole]
        case "llama-bpe" | "qwen2":
            pattern = _WORDS % ("{1,3}" if name == "llama-bpe" else "")
            split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            parts = [split, _BYTES | {"use_regex": False}]
        case _:
            raise ValueError(f"text cut as for {name!r} is not read, only as for gpt-2, smollm, llama-bpe and qwen2")
    normalizer = {"normalizer": {"type": "NFC"}} if name == "qwen2" else nothing
    return normalizer | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}


def _chat(template: object, special: Mapping[str, str], stop: list[int]) -> Chat | None:
    if template is None:
        return None
    if not isinstance(template, str):
        raise ValueError("its chat template is no text")
    return {"template": template, "special": dict(special), "stop": sorted({*stop})}


def _numbers(value: object) -> list[int]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]


def _content(token: object) -> str:
    """Return a special token, which is a text or a node with its `content`."""
    return str(token["content"]) if isinstance(token, Mapping) else str(token)


def _read_json(file: Path, needed: bool = True) -> dict[str, Any]:
    if not needed and not file.is_file():
        return {}
    found = json.loads(read_bytes(file).decode("utf-8-sig"))
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no mapping")
    return found
