"""Model, task and data that each are right and do not go together are refused in a line, before anything is made."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.errors import ConfigError
from conftest import Answer, is_quiet

QUICK = ("device=cpu", "model=gpt", "model.layers=1", "model.width=8", "model.heads=2", "batch_size=2")
TEXT = ("dataset=text", "dataset.path=texts")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("a text of some length, and more of it; " * 40)
    (folder / "pairs.csv").write_text("source,target\n" + "".join(f"word {n},mot {n}\n" for n in range(40)))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*TEXT, "loss=null", "task=permuted_language_modelling"), "with the task PermutedLanguageModelling"),
        (("dataset=parallel_text", "dataset.train=texts/pairs.csv", "task=translation"), "needs a model that encodes"),
        (("dataset=digits", "model.context=8", "model.vocab_size=9"), "with the task Classification"),
    ],
)
def test_parts_that_do_not_go_together(
    cli: Callable[..., Answer], texts: Path, words: tuple[str, ...], says: str
) -> None:
    (line,) = is_quiet(cli(*QUICK, *words, "monitor=val/loss", cwd=texts), code=2)
    assert line.startswith("model: GPT does not go with")
    assert says in line
    assert not (texts / "outputs").exists()


def test_where_a_model_of_ones_own_fails(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(63, num_classes)\n\n"
        "    def forward(self, x):\n"
        "        return self.head(x.flatten(1))\n"
    )
    words = ("device=cpu", "dataset=digits", "model=mlp", "model._target_=mine.Mine", "trust=[mine]")
    drop = ("~model.input_shape", "~model.hidden", "~model.dropout")
    (line,) = is_quiet(cli(*words, *drop, cwd=tmp_path), code=2)
    assert line.startswith(
        "model: Mine does not go with the task Classification and this data, or fails: RuntimeError: "
    )
    assert "(2x64 and 63x10)" in line
    with pytest.raises(ConfigError) as raised:  # what -v shows, as Python shows it
        cli(*words, *drop, "-v", cwd=tmp_path)
    assert "mine.py" in "".join(traceback.format_exception(raised.value))
