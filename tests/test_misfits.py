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
        ((*TEXT, "loss=null", "task=permuted_language_modelling"), "with task PermutedLanguageModelling"),
        (
            ("dataset=parallel_text", "dataset.train=texts/pairs.csv", "task=translation"),
            "needs an encoder-decoder model",
        ),
        (("dataset=digits", "model.context=8", "model.vocab_size=9"), "with task Classification"),
    ],
)
def test_parts_that_do_not_go_together(
    cli: Callable[..., Answer], texts: Path, words: tuple[str, ...], says: str
) -> None:
    (line,) = is_quiet(cli(*QUICK, *words, "monitor=val/loss", cwd=texts), code=2)
    assert line.startswith("model: GPT fails on a sample")
    assert says in line
    assert not (texts / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "fits", "others"),
    [
        (("dataset=table", "dataset.train=t.csv", "dataset.target=y", "model=cnn"), "linear, tabular_mlp", ""),
        ((*TEXT, "model=cnn"), "gpt", "bert"),
        (
            (*TEXT, "model=cnn", "task=classification"),
            "gpt with task=language_modelling, masked_bert with task=",
            "cnn",
        ),
        (("dataset=labelled_text", "dataset.train=a.csv", "model=cnn"), "bert, text_cnn, xlnet_classifier", "gpt"),
        (("dataset=parallel_text", "dataset.train=a.csv", "model=cnn"), "seq2seq", "deepspeech"),
        (("dataset=series", "dataset.file=a.csv", "model=cnn"), "dlinear, patch_transformer, rnn", "mlp"),
        (("dataset=smiles", "model=cnn"), "masked_bert", "gpt"),
        (
            ("dataset=smiles", "model=cnn", "task=classification"),
            "masked_bert with task=masked_language_modelling, xlnet with task=permuted",
            "gpt",
        ),
        (("dataset=spoken_digit_waves", "model=cnn"), "wavenet", "gpt"),
        (("dataset=yesno", "model=gpt"), "deepspeech", "audio_cnn"),
        (("dataset=digits", "model=gpt"), "audio_cnn, cnn, inception, mlp, resnet18", "deepspeech"),
        (("dataset=digits", "model=tabular_mlp"), "audio_cnn, cnn, inception, mlp, resnet18", "gpt"),
        (("dataset=table", "dataset.train=t.csv", "dataset.target=y", "model=rnn"), "linear, tabular_mlp", "dlinear"),
    ],
)
def test_the_models_that_fit_are_named(
    cli: Callable[..., Answer], texts: Path, words: tuple[str, ...], fits: str, others: str
) -> None:
    (line,) = is_quiet(cli("device=cpu", *words, cwd=texts), code=2)
    begin, sign, found = line.partition("; models for this data: ")
    assert begin.startswith("model.")
    assert sign
    assert found.startswith(fits), found
    assert not others or others not in found.split(", ")
    assert not (texts / "outputs").exists()


def test_models_are_named_where_the_model_fails_on_the_data(cli: Callable[..., Answer], texts: Path) -> None:
    words = ("dataset=digits", "model.context=8", "model.vocab_size=9")
    (line,) = is_quiet(cli(*QUICK, *words, cwd=texts), code=2)
    assert "models for this data: audio_cnn, cnn" in line


@pytest.mark.slow
def test_the_models_named_for_pictures_fit(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (line,) = is_quiet(cli("model=gpt", "device=cpu", cwd=tmp_path), code=2)
    for name in line.partition("models for this data: ")[2].split(", "):
        answer = cli("device=cpu", f"model={name}", "dry_run=true", "batch_size=2", cwd=tmp_path)
        assert answer.code == 0 or "8x8" in answer.err, answer.err  # some take larger pictures only


def test_where_it_failed_is_shown_when_asked(cli: Callable[..., Answer], texts: Path) -> None:
    words = (*QUICK, "dataset=digits", "model.context=8", "model.vocab_size=9", "-v")
    with pytest.raises(ConfigError) as raised:
        cli(*words, cwd=texts)
    assert "models/gpt.py" in "".join(traceback.format_exception(raised.value))


def test_a_model_of_ones_own_sees_its_own_steps_alone(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "import torch\n\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.head, self.calls = torch.nn.Linear(64, num_classes), 0\n\n"
        "    def forward(self, x):\n"
        "        self.calls += self.training\n"
        "        Path('calls').write_text(str(self.calls))\n"
        "        return self.head(x.flatten(1))\n"
    )
    given = ("~model.input_shape", "~model.hidden", "~model.dropout", "limit_batches=3", "epochs=1")
    words = ("device=cpu", "dataset=digits", "model=mlp", "trust=[mine]", "model._target_=mine.Mine", *given)
    answer = cli(*words, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert (tmp_path / "calls").read_text() == "3"


def test_whose_mistake_it_was(cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "narrow.py").write_text(
        "import torch\n\n"
        "class Net(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1))\n"
    )
    own = ("~model", "+model={_target_: narrow.Net, in_features: 63, out_features: 10}", "trust=[narrow]")
    answer = cli("device=cpu", "dataset=digits", *own, cwd=tmp_path)
    lines = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert answer.code == 1
    assert lines[0].startswith(f"error: {tmp_path / 'narrow.py'}, line 5: RuntimeError: mat1 and mat2")
    assert "the error is in your code" in lines[1]
    monkeypatch.setattr("bigmodel.training.build.choose_precision", None)
    answer = cli("device=cpu", "dataset=digits", "model=mlp", cwd=tmp_path)
    assert answer.code == 1
    assert answer.err.startswith("error: internal error: TypeError: ")
    assert "this is a bug in bigmodel-train" in answer.err


@pytest.mark.parametrize("task", ["language_modelling", "masked_language_modelling"])
def test_a_task_brings_what_it_monitors(cli: Callable[..., Answer], texts: Path, task: str) -> None:
    model = () if task == "language_modelling" else ("model=masked_bert",)
    answer = cli(*QUICK, *TEXT, *model, f"task={task}", "dry_run=true", cwd=texts)
    assert answer.code == 0, answer.err
    assert f"chosen by task={task}: loss=null monitor=val/loss" in answer.out
