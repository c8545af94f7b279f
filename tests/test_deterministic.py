"""Two runs of one config, in two processes, leave the same bits on a CPU: every image model and data set."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigmodel.config.location import conf_directory
from bigmodel.errors import ConfigError
from bigmodel.runtime.device import Device
from conftest import Answer, call, fingerprint, is_quiet, only_run, records, slow_where
from datasets.test_cifar import binary10
from datasets.test_cifar import records as cifar_records
from datasets.test_medmnist import contents as medmnist_contents
from datasets.test_mnist import write as write_mnist
from forks import finished, launch
from test_contract import FAMILIES, beside

SHORT = ("device=cpu", "device.deterministic=true", "epochs=1", "limit_batches=2", "batch_size=8")


def _twice(tmp_path: Path, words: Sequence[str], threads: int) -> None:
    """Here, where other tests have left what they leave, and in a process of its own."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    words = [*words, *SHORT, f"device.threads={threads}"]
    here = call(*words, cwd=tmp_path / "one")
    assert here.code == 0, here.err
    there = launch(*words, cwd=tmp_path / "two", output=tmp_path / "two.txt")
    assert finished(there) == 0, (tmp_path / "two.txt").read_text()
    one, two = here.run, only_run(tmp_path / "two")
    assert fingerprint(one) == fingerprint(two)
    assert records(one) == records(two)


MODELS = {
    "cnn": ["model.channels=8", "model.hidden=32"],
    "mlp": ["model.hidden=[32]", "model.dropout=0.1"],
    "resnet18": ["model.width=8"],
    "whitened_cnn": ["model.widths=[8]", "optim=muon_sgd", "optim.bias_lr=1"],
    "torchvision": ["model.name=mobilenet_v3_small"],
    "timm": ["model.name=resnet10t"],
}


def test_every_model_is_here_or_resumes_bitwise_by_contract() -> None:
    assert {file.stem for file in (conf_directory() / "model").glob("*.yaml")} == set(MODELS) | set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("model", slow_where(MODELS, {"timm", "torchvision", "resnet18", "cnn"}.__contains__))
def test_a_model_repeats_bitwise(tmp_path: Path, model: str) -> None:
    if model == "timm" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed (extra timm)")
    _twice(tmp_path, [f"model={model}", *MODELS[model]], threads=1 if model in ("torchvision", "timm") else 2)


def _pictures(root: Path) -> None:
    dice = np.random.default_rng(0)
    rows = ["path,label"]
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(dice.integers(256, size=(10, 12, 3), dtype=np.uint8)).save(root / label / f"{number}.png")
            rows.append(f"{label}/{number}.png,{label}")
    (root / "list.csv").write_text("\n".join(rows) + "\n")


def _cifar100(parent: Path) -> None:
    folder = parent / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name, count in (("train.bin", 60), ("test.bin", 20)):
        cifar_records(count, classes=100, coarse=True).tofile(folder / name)


def _mnist(parent: Path, name: str) -> None:
    parent.mkdir()
    write_mnist(parent / name)


def _medmnist(parent: Path, name: str) -> None:
    parent.mkdir()
    np.savez(parent / f"{name}.npz", **medmnist_contents(times=4, shape=(28, 28)))


DATASETS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "digits": (lambda root: None, []),
    "cifar10": (lambda root: (root.mkdir(), binary10(root)), ["data_dir={}"]),
    "cifar100": (_cifar100, ["data_dir={}"]),
    "mnist": (lambda root: _mnist(root, "mnist"), ["data_dir={}"]),
    "fashion_mnist": (lambda root: _mnist(root, "fashion_mnist"), ["data_dir={}"]),
    "breastmnist": (lambda root: _medmnist(root, "breastmnist"), ["data_dir={}"]),
    "pneumoniamnist": (lambda root: _medmnist(root, "pneumoniamnist"), ["data_dir={}"]),
    "image_folder": (_pictures, ["dataset.root={}", "resident_gb=0"]),
    "csv_images": (_pictures, ["dataset.file={}/list.csv", "resident_gb=0", "workers=1"]),
}


def test_every_dataset_is_here_or_goes_with_a_family_of_the_contract() -> None:
    names = {file.stem for file in (conf_directory() / "dataset").glob("*.yaml")}
    assert set(DATASETS) <= names
    assert all(beside("dataset", name) for name in names - set(DATASETS))


@pytest.mark.parametrize("dataset", slow_where(DATASETS, lambda dataset: dataset not in ("digits", "mnist")))
def test_a_dataset_repeats_bitwise(tmp_path: Path, dataset: str) -> None:
    prepare, words = DATASETS[dataset]
    root = tmp_path / "data"
    prepare(root)
    augmented = ["dataset.augment.flip=true", "dataset.augment.crop=2"]
    _twice(tmp_path, [f"dataset={dataset}", *(word.format(root) for word in words), *augmented, "model=mlp"], threads=1)


UNREPEATABLE = """
import torch
from torch import nn
class Unrepeatable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
    def forward(self, x):
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(  # in the words of torch, for an operation that a CPU has not
                "fold_backward_cuda does not have a deterministic implementation, but you set "
                "'torch.use_deterministic_algorithms(True)'."
            )
        return self.head(x.flatten(1))
"""


def test_an_operation_that_cannot_repeat_is_named(cli: Callable[..., Answer], tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "unrepeatable_pkg.py").write_text(UNREPEATABLE)
    words = ["~model", "+model={_target_: unrepeatable_pkg.Unrepeatable}", "trust=[unrepeatable_pkg]", "epochs=1"]
    (line,) = is_quiet(cli(*words, "device=cpu", "device.deterministic=true"), code=2)
    assert line.startswith("device.deterministic: fold_backward_cuda is not bitwise repeatable")
    assert not list(here.glob("outputs/*"))
    assert cli(*words, "device=cpu", "limit_batches=1").code == 0


def test_an_apple_gpu_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "not bitwise" in Device("mps").reproducibility
    with pytest.raises(ConfigError, match=r"device\.deterministic"):
        Device("mps", deterministic=True)


def test_the_plan_says_what_repeats(cli: Callable[..., Answer]) -> None:
    answer = cli("device=cpu", "dry_run=true")
    assert "reproducible  bitwise" in answer.out
