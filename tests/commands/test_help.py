"""`--help`: one screen, and a page for each group, choice and key, as the YAML has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.cli import COMMANDS
from bigmodel.config.location import conf_directory
from conftest import Answer, is_quiet

GROUPS = ("dataset", "task", "model", "optim", "schedule", "loss", "device", "listeners", "experiment")


def _lines(answer: Answer) -> list[str]:
    assert answer.code == 0, answer.err
    return answer.out.splitlines()


@pytest.mark.parametrize("columns", [80, 200])
def test_one_screen_has_the_groups_the_keys_most_used_and_how_to_see_more(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = _lines(cli("--help"))
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= columns
    for group in GROUPS:
        (line,) = [line for line in lines if line.startswith(f"  {group}=")]
        assert f" {len([*(conf_directory() / group).glob('*.yaml')])} choices" in line
    for words in (
        "epochs=30 ",
        "optim.lr=0.05 ",
        "dataset=digits",
        "--help device",
        "--help keys",
        "resume=RUN",
        "seeds=N",
    ):
        assert any(words in line for line in lines), words


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_fits_a_narrow_terminal(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = _lines(cli("--help", verb=verb))
    assert any(f"bigmodel-{verb} " in line for line in lines)
    assert all(len(line) <= 80 or line.startswith("  bigmodel-") for line in lines)
    assert len(lines) <= 60


@pytest.mark.parametrize("group", ["dataset", "listeners"])
def test_a_group_lists_its_choices_a_line_each(cli: Callable[..., Answer], group: str) -> None:
    _, *lines, _ = _lines(cli("--help", group))
    assert [line.split()[0] for line in lines] == sorted(
        path.stem for path in (conf_directory() / group).glob("*.yaml")
    )


def test_a_choice_shows_its_keys_with_defaults_and_meaning(cli: Callable[..., Answer]) -> None:
    text = " ".join(cli("--help", "model=gpt").out.split())
    assert text.startswith("model=gpt: A transformer for the next token")
    assert "model.layers=4" in text
    assert "model.tie_embeddings=true the output's weights are the embedding's" in text
    assert "GPT-2's own weights fit into it: init.from; nanogpt" in text  # the comment goes on in the next line
    assert "bigmodel.models.gpt.GPT" in text


def test_a_default_is_shown_as_it_could_be_typed(cli: Callable[..., Answer]) -> None:
    lines = [line.split("  ")[1] for line in _lines(cli("--help", "dataset=table")) if line.startswith("  dataset.")]
    assert 'dataset.strip=" "' in lines
    assert 'dataset.missing=["",?,NA,NaN,nan]' in lines


def test_a_choice_tells_what_it_chooses(cli: Callable[..., Answer]) -> None:
    page = " ".join(cli("--help", "dataset=trec").out.split())
    assert "task=classification model=text_cnn optim=adamw" in page
    assert "loss=mse monitor=val/loss" in cli("--help", "task=regression").out
    recipe = " ".join(cli("--help", "experiment=adult").out.split())
    assert "model=tabular_mlp dataset=adult optim=adamw schedule=one_cycle" in recipe
    assert "epochs=6" in recipe
    assert "The number of epochs was chosen by the validation loss" in recipe  # all of the comment, not its first line


def test_keys_are_explained_as_the_other_words_choose_them(cli: Callable[..., Answer]) -> None:
    assert "optim.lr=0.05" in cli("optim.lr", "--help").out
    assert "optim.lr=0.001" in cli("optim.lr", "optim=adamw", "--help").out
    assert "init.lora.rank=0" in cli("--help", "init").out
    assert "model=vit" in cli("--help", "model.patch").out  # of no default choice
    assert "on_failure=" in cli("--help", "keys").out
    assert "jobs" in cli("--help", "-m", "jobs=2").out
    assert "hydra.sweeper.n_trials=null" in cli("--help", "hydra/sweeper=optuna").out
    assert "input" in cli("--help", "input=photo.png", verb="predict").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["modle"], "modle: there is no such group or key; did you mean model?"),
        (["model=gtp"], "model: there is no 'gtp'; did you mean gpt?"),
        (["model=GPT"], "model: there is no 'GPT'; did you mean gpt?"),
        (["lr"], "lr: there is no such group or key; did you mean optim.lr?"),
        (["listeners=[console,cvs]"], "listeners: there is no 'cvs'; did you mean csv?"),
        (["zzzzz"], "zzzzz: there is no such group or key; see bigmodel-train --help"),
        (["model._target_"], "model._target_: there is no such group or key"),
    ],
)
def test_a_wrong_word_is_told_the_right_one(cli: Callable[..., Answer], words: list[str], says: str) -> None:
    (line,) = is_quiet(cli("--help", *words), code=2)
    assert line.startswith(says)


def test_launchers_that_stand_in_no_yaml_are_choices_too(cli: Callable[..., Answer]) -> None:
    _, *lines, _ = _lines(cli("--help", "hydra/launcher"))
    assert [line.split()[0] for line in lines] == ["bigmodel", "slurm", "ray"]
    assert "bigmodel" in cli("--help", "hydra/sweeper").out
    assert "hydra.launcher.partition=null" in cli("--help", "hydra/launcher=slurm").out
    (line,) = is_quiet(cli("--help", "hydra/launcher=slrm"), code=2)
    assert line == "hydra/launcher: there is no 'slrm'; did you mean slurm?"


def test_an_overlay_has_its_choices_and_keys(cli: Callable[..., Answer], tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "dataset"
    folder.mkdir(parents=True)
    (folder / "opinions.yaml").write_text(
        "# My opinions.\ndefaults: [labelled_text, _self_]\ngoes_with: {model: bert}\n"
        "train: opinions.csv   # what people\n                     # wrote\n"
    )
    given = ("--config-dir", str(tmp_path / "mine"), "--help")
    assert "opinions" in cli(*given, "dataset").out
    assert "opinions" not in cli("--help", "dataset").out
    page = " ".join(cli(*given, "dataset=opinions").out.split())
    assert "All of --help dataset=labelled_text, and:" in page
    assert "model=bert" in page
    assert "dataset.train=opinions.csv what people wrote" in page
