"""What is built on behalf of a run's files, which may be a stranger's, reaches no network and no file of others."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bigmodel
from bigmodel.config.instantiate import instantiate
from bigmodel.errors import ConfigError, DataError
from bigmodel.inference.predictor import build_model
from bigmodel.runtime.offline import NetworkRefused, offline, online
from conftest import TINY, Answer, call
from hostile import STEP, in_config, in_state

SEGMENTATION = "torchvision.models.segmentation"
MODELS: dict[str, dict[str, Any]] = {
    "segmentation, backbone by default": {"_target_": f"{SEGMENTATION}.fcn_resnet50"},
    "segmentation, both": {"_target_": f"{SEGMENTATION}.lraspp_mobilenet_v3_large", "weights": "DEFAULT"},
    "detection, backbone by default": {"_target_": "torchvision.models.detection.ssdlite320_mobilenet_v3_large"},
    "a classifier": {"_target_": "torchvision.models.squeezenet1_1", "weights": "IMAGENET1K_V1"},
    "quantized": {"_target_": "torchvision.models.quantization.shufflenet_v2_x0_5", "weights": "DEFAULT"},
    "by name": {
        "_target_": "bigmodel.models.torchvision_model.torchvision_model",
        "name": "squeezenet1_1",
        "input_shape": [3, 32, 32],
        "num_classes": 2,
    },
}
SOME_OTHER_KEY = {  # what `without_pretrained` does not know
    "a whole model of weights": {
        "_target_": "torchvision.models.get_model",
        "name": "squeezenet1_1",
        "weights": "DEFAULT",
    },
}
_opened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        _opened.append(os.path.abspath(os.fspath(arguments[0])))


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The files that are opened, but for those of Python and its packages."""
    global _opened
    if not hasattr(sys, "_opened_is_watched"):
        sys.addaudithook(_note)
        sys._opened_is_watched = True  # type: ignore[attr-defined]
    _opened = []
    yield _opened
    _opened = None


def _others(files: list[str]) -> list[str]:
    places = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, *filter(None, sys.path)}
    known = (*places, "/proc/", "/sys/", "/dev/", "/usr/", "/etc/", str(Path(torch.__file__).parents[1]))
    return [file for file in files if not file.startswith(known) and not file.endswith("/.lock")]


@pytest.mark.parametrize("node", MODELS.values(), ids=MODELS.keys())
def test_a_model_of_a_checkpoint_is_built_without(
    node: dict[str, Any], opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    model = build_model({"model": node})
    assert isinstance(model, nn.Module)
    assert _others(opened) == []
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("node", SOME_OTHER_KEY.values(), ids=SOME_OTHER_KEY.keys())
def test_what_would_reach_it_is_refused_in_a_line(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with (
        offline(),
        pytest.raises(ConfigError, match=r"^model: would reach the network \(https://download.pytorch.org") as e,
    ):
        instantiate("model", {**node, "weights": "IMAGENET1K_V1"})
    assert len(e.value.lines) == 1


ATTEMPTS: dict[str, Callable[[], object]] = {
    "a name": lambda: socket.getaddrinfo("example.org", 80),
    "an address": lambda: socket.create_connection(("127.0.0.1", 9), timeout=0.1),
    "a packet": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    "an address of six": lambda: socket.socket(socket.AF_INET6).connect(("::1", 9)),
    "a page": lambda: urllib.request.urlopen("http://127.0.0.1:9/"),
    "an old call": lambda: socket.gethostbyname("example.org"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_every_way_there_is_closed(attempt: Callable[[], object]) -> None:
    with offline("; a hint"), pytest.raises(NetworkRefused, match=r"would reach the network .*; a hint"):
        attempt()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_is_closed_for_as_long_as_it_should_be(tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.listen()
    with offline():
        socket.socket(socket.AF_UNIX).connect(str(tmp_path / "socket"))  # as data workers have
        with online(), pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        with pytest.raises(NetworkRefused):
            socket.create_connection(("127.0.0.1", 9), timeout=1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    server.close()


MIRROR = {
    "_target_": "bigmodel.datasets.images.mnist.mnist",
    "data_dir": "nowhere",
    "download": True,
    "mirror": "http://127.0.0.1:9/",
    "num_classes": 10,
    "input_shape": [1, 28, 28],
    "mean": [0.13],
    "std": [0.31],
    "val_fraction": 0.1,
    "augment": {"_target_": "bigmodel.datasets.images.augment.ImageAugment"},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answer = call(*TINY, "device.threads=1", cwd=tmp_path_factory.mktemp("sound"))
    assert answer.code == 0, answer.err
    return answer.cwd


def test_a_strangers_mirror_is_not_asked(
    cli: Callable[..., Answer], sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `data_dir` lies
    (run,) = sound.glob("outputs/*/*")
    in_state("config.dataset", MIRROR)(run, run)
    in_config("dataset", MIRROR)(run, run)
    (run / "checkpoints" / "best.json").unlink(missing_ok=True)
    assert (run / "checkpoints" / STEP).is_dir()
    for verb, words in {"evaluate": [f"run={run}", "device=cpu"], "train": [f"resume={run}"]}.items():
        answer = cli(*words, verb=verb)
        assert answer.code == 2, answer.err
        (line,) = answer.err.splitlines()
        assert line.startswith("error: dataset: would reach the network (http://127.0.0.1:9/"), line
    with pytest.raises(ConfigError, match="would reach the network"):
        bigmodel.train([f"resume={run}"])
    answer = cli(f"resume={run}", "dataset.download=true")
    assert answer.code == 3, answer.err
    assert "127.0.0.1" in answer.err
    with pytest.raises(DataError, match=r"127\.0\.0\.1"):
        bigmodel.train([f"resume={run}", "dataset.download=true"])
