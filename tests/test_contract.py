"""What every family of models promises, whatever it is of: one line in `FAMILIES` holds it to all of it.

It says its parameters and arithmetic beforehand, learns one batch by heart, resumes bitwise, answers raw input from its
checkpoint alone, and its export computes the same.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigmodel.config.location import conf_directory
from bigmodel.datasets.audio.wav import write_wav
from bigmodel.runs import checkpoint
from conftest import Answer, call, fingerprint, records, slow_where


def picture(folder: Path) -> str:
    """Raw input as a stranger would give it; returns what `input=` is to be."""
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(folder / "raw.png")
    return "raw.png"


def rows(folder: Path) -> str:
    """A table of two classes that a number and a category tell apart; raw input is the same file."""
    lines = (f"{n % 7},{'abc'[n % 3]},{'yes' if n % 7 > 3 or n % 3 == 2 else 'no'}" for n in range(260))
    (folder / "rows.csv").write_text("\n".join(["size,hue,sold", *lines]) + "\n", encoding="utf-8")
    return "rows.csv"


ROWS = (
    "dataset=table",
    "dataset.root=.",
    "dataset.train=rows.csv",
    "dataset.target=sold",
    "dataset.categorical_columns=[hue]",
)


def waves(folder: Path) -> str:
    """Two series that go up and down; raw input is the same file."""
    lines = (f"{np.sin(n / 2):.4f},{np.cos(n / 3) + n / 50:.4f}" for n in range(260))
    (folder / "waves.csv").write_text("\n".join(["a,b", *lines]) + "\n", encoding="utf-8")
    return "waves.csv"


WAVES = ("dataset=series", "dataset.root=.", "dataset.file=waves.csv", "dataset.window=12", "dataset.horizon=4")
FORECAST = (*WAVES, "task=forecasting", "loss=mse", "monitor=val/loss")


@dataclass(frozen=True)
class Family:
    """Words that make it tiny, raw input for it, and the format it is exported in, with the reason where that is not
    ONNX, which is slow to make: the families that share their operations with another are spared it. All of them can be
    written as ONNX (2026-11-24: torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0; 4e-6 from the original at most).
    Where ONNX is not installed, the others are written as torch's own programs.
    """

    words: tuple[str, ...]
    raw: Callable[[Path], str]
    data: Callable[[Path], object] = lambda _: None  # makes what the words name, where it will be trained
    format: str = "onnx"
    why: str = ""
    learns: float = 0.7  # the share of its first loss to which it must bring that of one batch


def rhyme(folder: Path) -> None:
    (folder / "rhyme.txt").write_text("one for sorrow, two for joy, three for a girl and four for a boy\n" * 24)


RHYME = ("dataset=text", "dataset.path=rhyme.txt", "dataset.tokenizer=char", "dataset.context=8")
LANGUAGE = ("task=language_modelling", "loss=null", "monitor=val/loss")


def remarks(folder: Path) -> None:
    rows = [
        f"a {word} film , number {n}\t{label}" for n in range(100) for word, label in (("good", "+"), ("dull", "-"))
    ]
    (folder / "remarks.tsv").write_text("\n".join(["text\tlabel", *rows]))


REMARKS = ("dataset=labelled_text", "dataset.train=remarks.tsv", "dataset.context=8")
HIDDEN = ("dataset.predicts=masked_token", "task=masked_language_modelling", "loss=null", "monitor=val/loss")
PERMUTED = ("dataset.predicts=masked_token", "task=permuted_language_modelling", "loss=null", "monitor=val/loss")


def assays(folder: Path) -> None:
    """Chains with two labels, some of them unknown."""
    rows = [f"{'C' * (1 + n % 9)}{'ON'[n % 2]},{n % 2},{n % 9 // 5 if n % 4 else ''}" for n in range(220)]
    (folder / "assays.csv").write_text("\n".join(["smiles,amine,long", *rows]))


ASSAYS = ("dataset=molecules", "dataset.root=.", "dataset.train=assays.csv", "dataset.targets=[amine,long]")
LABELS = ("dataset.target_type=labels", "dataset.context=12", "task=multi_label", "loss=null", "monitor=val/auc")
OUTPUTS = "model.num_classes=${dataset.outputs}"
SMALL = ("model.layers=1", "model.width=16", "model.heads=2")


def numbers(folder: Path) -> None:
    """Numbers, spelt and in digits."""
    words = ["one", "two", "three", "four", "five", "six"]
    rows = [f"{a} {b} {c}\t{words.index(a)}{words.index(b)}{words.index(c)}" for a, b, c in product(words, repeat=3)]
    (folder / "numbers.tsv").write_text("\n".join(["source\ttarget", *rows]))


NUMBERS = ("dataset=parallel_text", "dataset.train=numbers.tsv", "dataset.context=16", "task=translation", "loss=null")

STILL = "dataset.augment.crop=0"


def buzz(file: Path, *periods: int, samples: int = 1200) -> str:
    """A wav file of rectangular waves, one after the other, with periods of so many samples."""
    waves = [0.5 - (torch.arange(samples) // (period // 2) % 2).float() for period in periods]
    write_wav(file, torch.cat(waves), 8000)
    return file.name


def digits_spoken(folder: Path) -> None:
    (folder / "recordings").mkdir()
    for number in range(33):
        buzz(folder / "recordings" / f"{number % 3}_me_{number}.wav", 20 * (1 + number % 3))


def words_spoken(folder: Path) -> None:
    (folder / "waves_yesno").mkdir()
    for number in range(33):
        words = f"{number:08b}"
        periods = [8 if word == "1" else 80 for word in words]
        buzz(folder / "waves_yesno" / f"{'_'.join(words)}.wav", *periods, samples=450)


SPOKEN = ("data_dir=.", "dataset.features.mels=8", "batch_size=2")
CTC = ("dataset=yesno", "task=ctc", "loss=null", "monitor=val/loss", *SPOKEN, "dataset.augment.shift=0")
WAVES = ("dataset=spoken_digit_waves", "task=language_modelling", "loss=null", "monitor=val/loss")
CUT = ("dataset.augment.length=256", "dataset.augment.context=4", "dataset.seconds=0.04", "data_dir=.", "batch_size=2")

FAMILIES = {
    "audio_cnn": Family(
        ("dataset=spoken_digits", *SPOKEN, "dataset.frames=16", "model.widths=[8]", "model.dropout=0"),
        lambda folder: buzz(folder / "raw.wav", 40),
        digits_spoken,
        format="safetensors",
        why="as resnet18",
    ),
    "bert": Family(
        (*ASSAYS, *LABELS, *SMALL, OUTPUTS), lambda _: "CC(=O)O", assays, format="torch_export", why="as masked_bert"
    ),
    "cnn": Family(("model.channels=2", "model.hidden=8", STILL), picture, format="safetensors", why="as resnet18"),
    "deepspeech": Family(
        (*CTC, "model.channels=8", "model.strides=[1]", "model.hidden=8", "model.dropout=0"),
        lambda folder: buzz(folder / "raw.wav", 8, 80),
        words_spoken,
        format="safetensors",
        why="ONNX in 58 s: a recurrent layer is traced frame by frame, and for clips of one length",
    ),
    "dlinear": Family((*FORECAST, "model.kernel=5"), waves, waves, "safetensors", "as patch_transformer"),
    "gpt": Family((*RHYME, *LANGUAGE, "model.layers=1", "model.width=16", "model.heads=2"), lambda _: "two for", rhyme),
    "inception": Family(
        ("model.widths=[8,16]", "model.blocks=1", "model.stem=8", STILL),
        picture,
        format="torch_export",
        why="as resnet18",
    ),
    "linear": Family(ROWS, rows, rows, "safetensors", "as tabular_mlp"),
    "masked_bert": Family((*REMARKS, *HIDDEN, *SMALL), lambda _: "a <mask> film", remarks, learns=0.9),
    "mlp": Family(("model.hidden=[16]", STILL), picture, format="safetensors", why="test_export has it"),
    "patch_transformer": Family(
        (*FORECAST, "model.patch=4", "model.stride=2", "model.depth=1", "model.dropout=0"),
        waves,
        waves,
        "torch_export",
        "as gpt",
    ),
    "resnet18": Family(("model.blocks=[1]", "model.width=8", STILL), picture),
    "resnet_cifar": Family(
        ("model.depth=8", "model.width=4", STILL), picture, format="torch_export", why="as resnet18"
    ),
    "rnn": Family((*FORECAST, "model.hidden=32"), waves, waves, "safetensors", "ONNX in 14 s, as deepspeech"),
    "seq2seq": Family(
        (*NUMBERS, "monitor=val/loss", "model.encoder_layers=1", "model.decoder_layers=1", *SMALL[1:]),
        lambda _: "five six\none",
        numbers,
        format="safetensors",
        why="torch_export does, in 3 s",
    ),
    "tabular_mlp": Family((*ROWS, "model.hidden=[16]", "model.dropout=0"), rows, rows, "torch_export", "as resnet18"),
    "text_cnn": Family(
        (*REMARKS, "model.width=8"), lambda _: "dull, dull", remarks, format="safetensors", why="as cnn"
    ),
    "vgg": Family(("model.width=4", STILL), picture, format="safetensors", why="as resnet18"),
    "vit": Family(
        ("model.layers=1", "model.width=16", "model.heads=2", STILL), picture, format="torch_export", why="as gpt"
    ),
    "wavenet": Family(
        (*WAVES, *CUT, "model.channels=8", "model.skip_channels=8", "model.dilations=[1,2]"),
        lambda _: "2",
        digits_spoken,
        format="safetensors",
        why="convolutions, as resnet18",
    ),
    "whitened_cnn": Family(("model.widths=[8]", STILL), picture, format="torch_export", why="as resnet18"),
    "xlnet": Family(
        (*REMARKS, *PERMUTED, *SMALL, "model.dropout=0"),
        lambda _: "a <mask> film",
        remarks,
        format="safetensors",
        why="torch_export does, in 2 s",
        learns=0.9,
    ),
    "xlnet_classifier": Family((*REMARKS, *SMALL), lambda _: "a good one", remarks, "safetensors", "as xlnet"),
}
ELSEWHERE = {"timm", "torchvision"}  # tests/models: their import alone takes seconds
ALSO = {
    "dataset=adult": "tabular_mlp",
    "dataset=audio_folder": "audio_cnn",
    "dataset=banking77": "text_cnn",
    "dataset=bbbp": "bert",
    "dataset=conversations": "gpt",
    "dataset=esol": "bert",
    "dataset=etth1": "dlinear",
    "dataset=iso_names": "seq2seq",
    "dataset=names": "gpt",
    "dataset=preferences": "gpt",
    "dataset=smiles": "masked_bert",
    "dataset=sms_spam": "text_cnn",
    "dataset=sp500": "dlinear",
    "dataset=sst2": "text_cnn",
    "dataset=tinyshakespeare": "gpt",
    "dataset=tox21": "bert",
    "dataset=trec": "text_cnn",
    "task=regression": "linear",
}  # choices that go with a family and are not in its line


def beside(group: str, name: str) -> list[str]:
    """The other choices that one goes with, where it does not go with the defaults."""
    word = f"{group}={name}"
    lines = {model: (f"model={model}", *family.words) for model, family in FAMILIES.items()}
    words = lines[ALSO[word]] if word in ALSO else next((line for line in lines.values() if word in line), ())
    return [other for other in words if other.partition("=")[0].partition(".")[0] != group]


STEPS = 30


QUICK = ("bert", "cnn", "gpt", "mlp", "rnn", "tabular_mlp")  # the others take minutes in all


@pytest.fixture(scope="module", params=slow_where(FAMILIES, lambda name: name not in QUICK))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Answer]:
    """A run of thirty updates on one batch, with a checkpoint after twenty of them."""
    family = FAMILIES[request.param]
    here = tmp_path_factory.mktemp("family")
    family.data(here)
    words = ("device=cpu", "device.threads=1", f"model={request.param}", "batch_size=16", *family.words)
    learning = ("overfit_batch=true", "limit_batches=10", "epochs=3", "log_every=1steps", "schedule=constant")
    answer = call(*words, *learning, "optim=adamw", "optim.lr=0.01", cwd=here)
    assert answer.code == 0, answer.err
    return family, answer


def test_every_model_is_held_to_it() -> None:
    assert {path.stem for path in (conf_directory() / "model").glob("*.yaml")} == set(FAMILIES) | ELSEWHERE


def test_its_cost_is_known_beforehand(trained: tuple[Family, Answer]) -> None:
    _, answer = trained
    plan = call("--config-path", str(answer.run), "--config-name", "config", "dry_run=true", cwd=answer.cwd)
    assert plan.code == 0, plan.err
    counted = int(re.findall(r"(?m)^ *parameters  ([\d,]+)", plan.out)[0].replace(",", ""))
    found, _ = checkpoint.load_newest(answer.run / "checkpoints")
    assert found is not None
    assert 0 < counted <= sum(tensor.numel() for tensor in found.tensors["model"].values())
    assert re.search(r"(?m)^ *compute  [1-9].*FLOP per step", plan.out)


def test_it_learns_one_batch_by_heart(trained: tuple[Family, Answer]) -> None:
    family, answer = trained
    losses = [record["loss"] for record in records(answer.run) if record["split"] == "train"]
    assert len(losses) == STEPS
    assert losses[-1] < family.learns * losses[0]


def test_it_resumes_bitwise(trained: tuple[Family, Answer], tmp_path: Path) -> None:
    _, answer = trained
    run = shutil.copytree(answer.run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / f"step-{STEPS:08d}")
    again = call(f"resume={run}", cwd=answer.cwd)
    assert again.code == 0, again.err
    assert "resumes at step 20" in again.out
    assert fingerprint(run) == fingerprint(answer.run)


def test_it_answers_raw_input(trained: tuple[Family, Answer], tmp_path: Path) -> None:
    family, answer = trained
    words = (f"run={answer.run}", f"input={family.raw(tmp_path)}", "device=cpu", "device.threads=1")
    rows = call(*words, "format=json", cwd=tmp_path, verb="predict")
    assert rows.code == 0, rows.err
    assert all(len(json.loads(line)) > 1 for line in rows.out.splitlines())
    table = call(*words, cwd=tmp_path, verb="predict")
    assert (table.code, len(table.out.splitlines()) > 0) == (0, True)


@pytest.mark.slow
def test_its_export_computes_the_same(trained: tuple[Family, Answer], tmp_path: Path) -> None:
    family, answer = trained
    there = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
    form = "torch_export" if family.format == "onnx" and not there else family.format
    ending = {"torch_export": "pt2"}.get(form, form)
    words = (f"run={answer.run}", f"format={form}", f"output={tmp_path / f'model.{ending}'}")
    exported = call(*words, cwd=tmp_path, verb="export")
    assert exported.code == 0, exported.err
    assert (tmp_path / f"model.{ending}.json").is_file()
