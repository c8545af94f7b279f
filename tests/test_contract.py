"""What every family of models promises, whatever it is of: one line in `FAMILIES` holds it to all of it.

It says its parameters and arithmetic beforehand, learns one batch by heart, resumes bitwise, answers raw input from its
checkpoint alone, and its export computes the same.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigmodel import checkpoint
from bigmodel.conf_directory import conf_directory
from conftest import Answer, call, fingerprint, records


def picture(folder: Path) -> str:
    """Raw input as a stranger would give it; returns what `input=` is to be."""
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(folder / "raw.png")
    return "raw.png"


@dataclass(frozen=True)
class Family:
    """Words that make it tiny, raw input for it, and the format it is exported in, with the reason where that is not
    ONNX, which is slow to make: the families that share their operations with another are spared it.
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

STILL = "dataset.augment.crop=0"

FAMILIES = {
    "cnn": Family(("model.channels=2", "model.hidden=8", STILL), picture, format="torch_export", why="as resnet18"),
    "gpt": Family((*RHYME, *LANGUAGE, "model.layers=1", "model.width=16", "model.heads=2"), lambda _: "two for", rhyme),
    "inception": Family(
        ("model.widths=[8,16]", "model.blocks=1", "model.stem=8", STILL),
        picture,
        format="torch_export",
        why="as resnet18",
    ),
    "mlp": Family(("model.hidden=[16]", STILL), picture, format="safetensors", why="test_export has it"),
    "resnet18": Family(("model.blocks=[1]", "model.width=4", STILL), picture),
    "resnet_cifar": Family(
        ("model.depth=8", "model.width=4", STILL), picture, format="torch_export", why="as resnet18"
    ),
    "vgg": Family(("model.width=4", STILL), picture, format="safetensors", why="as resnet18"),
    "vit": Family(
        ("model.layers=1", "model.width=16", "model.heads=2", STILL), picture, format="torch_export", why="as gpt"
    ),
    "whitened_cnn": Family(("model.widths=[8]", STILL), picture, format="torch_export", why="as resnet18"),
}
ELSEWHERE = {"timm", "torchvision"}  # tests/models: their import alone takes seconds
ALSO = {
    "dataset=names": "gpt",
    "dataset=tinyshakespeare": "gpt",
}  # choices that go with a family and are not in its line


def beside(group: str, name: str) -> list[str]:
    """The other choices that one goes with, where it does not go with the defaults."""
    word = f"{group}={name}"
    lines = {model: (f"model={model}", *family.words) for model, family in FAMILIES.items()}
    words = lines[ALSO[word]] if word in ALSO else next((line for line in lines.values() if word in line), ())
    return [other for other in words if other.partition("=")[0].partition(".")[0] != group]


STEPS = 30


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Answer]:
    """A run of thirty updates on one batch, with a checkpoint after twenty of them."""
    family = FAMILIES[request.param]
    here = tmp_path_factory.mktemp("family")
    family.data(here)
    words = ("device=cpu", "device.threads=1", f"model={request.param}", *family.words, "batch_size=16")
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
    counted = int(re.findall(r"(?m)^parameters  ([\d,]+)", plan.out)[0].replace(",", ""))
    found, _ = checkpoint.newest(answer.run / "checkpoints")
    assert found is not None
    assert 0 < counted <= sum(tensor.numel() for tensor in found.tensors["model"].values())
    assert re.search(r"(?m)^arithmetic  [1-9].*FLOP a step", plan.out)


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


def test_its_export_computes_the_same(trained: tuple[Family, Answer], tmp_path: Path) -> None:
    family, answer = trained
    if family.format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    ending = {"torch_export": "pt2"}.get(family.format, family.format)
    words = (f"run={answer.run}", f"format={family.format}", f"output={tmp_path / f'model.{ending}'}")
    exported = call(*words, cwd=tmp_path, verb="export")
    assert exported.code == 0, exported.err
    assert (tmp_path / f"model.{ending}.json").is_file()
