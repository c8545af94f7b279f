"""After each evaluation a few held-out conversations are answered, in the terminal and in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigmodel.runs.report import answers
from conftest import Answer
from small_chat import WORDS, chat_folder, turns
from test_resume import StopAt, _interrupted, _train


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tokenizers")
    made = tmp_path_factory.mktemp("asked")
    chat_folder(made / "m")
    lines = [turns("h", "c", WORDS[n : n + 2], "b" + WORDS[n]) for n in range(16)]
    (made / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return made


def _words(here: Path, *more: str) -> tuple[str, ...]:
    words = ("dataset=conversations", f"dataset.path={here / 'c.jsonl'}", f"init.from={here / 'm'}", "device=cpu")
    words += ("dataset.context=32", "dataset.val_fraction=0.2", "batch_size=4", "epochs=3", "device.threads=1")
    return (*words, "optim.lr=0.02", "listeners.answers.max_new_tokens=5", *more)


def _read(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("packing", ["false", "true"])
def test_what_it_answers(packing: str, cli: Callable[..., Answer], here: Path, tmp_path: Path) -> None:
    answer = cli(*_words(here, f"dataset.packing={packing}", "seed=1"))
    assert answer.code == 0, answer.err
    rows = _read(answer.run)
    steps = [one["step"] for one in rows]
    assert steps == sorted([*{*steps}] * 3)
    assert len({*steps}) == 3
    for one in rows:
        word = one["expected"].removeprefix("b")
        assert one["prompt"] == f"hac{word}{WORDS[WORDS.index(word) + 1]}a"  # u is no token, an end is not shown
        assert f"  answer  {one['answer']}\n" in answer.out
        assert f"expected  {one['expected']}\n" in answer.out
    last = [one for one in rows if one["step"] == steps[-1]]
    assert len({one["prompt"] for one in last}) == 3
    run = _interrupted(answer.run, tmp_path / "run", steps[0] + 1)
    _train(run, StopAt(-1), resume=True)
    assert _read(run) == rows


def test_other_data_has_no_answers(cli: Callable[..., Answer]) -> None:
    answer = cli("device=cpu", "model=mlp", "epochs=1", "limit_batches=1", "listeners=[console,answers]")
    assert answer.code == 0, answer.err
    assert not (answer.run / "answers.jsonl").exists()


def test_of_a_long_prompt_the_end_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert answers._line("prompt", "one two three four five six") == "  prompt  …hree four five six"
    assert answers._line("answer", "one two three four five six") == "  answer  one two three four…"
