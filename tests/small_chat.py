"""A published folder with a tiny model that holds conversations, and lines to tune it on."""

from __future__ import annotations

import json
from pathlib import Path

from models.test_llama import CONFIG, folder

TEMPLATE = "{% for m in messages %}{{ m.role[0] + m.content + '<|end|>' }}{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}a{% endif %}"
WORDS = "abcdefghijklmnopqrst"


def chat_folder(here: Path) -> Path:
    """A folder with a model of 23 tokens, of which its tokenizer knows 21: the letters of WORDS and a stop."""
    made = folder(here, CONFIG | {"eos_token_id": 20})
    end = {"id": 20, "content": "<|end|>", "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    definition = {
        "version": "1.0",
        "added_tokens": [end],
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "model": {"type": "BPE", "vocab": {word: n for n, word in enumerate(WORDS)}, "merges": []},
        "decoder": {"type": "Fuse"},
    }
    (made / "tokenizer.json").write_text(json.dumps(definition))
    settings = {"chat_template": TEMPLATE, "eos_token": {"content": "<|end|>"}}
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    return made


def turns(*contents: str) -> dict[str, object]:
    """A conversation in which user and assistant take turns."""
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": one} for n, one in enumerate(contents)]}
