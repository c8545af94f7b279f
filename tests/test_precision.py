"""What `auto` chooses: the plain choice unless another pays, told in the plan, written as plain values."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bigmodel.config.saved import load_config
from bigmodel.interfaces import Batch
from bigmodel.models.mlp import MLP
from bigmodel.models.resnet import ResNet
from bigmodel.runtime import precision
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from conftest import Answer, contents, fingerprint, is_quiet, only_run, slow_where
from forks import finished, launch

SHAPE = (3, 8, 8)
TASK = Classification(CrossEntropy(), 4)


def _settled(model: nn.Module, **settings: object) -> Device:
    device = Device("cpu", **({"precision": "auto", "channels_last": "auto"} | settings))
    precision.choose_precision(
        device, model, TASK, lambda count: Batch(torch.rand(count, *SHAPE), torch.zeros(count).long())
    )
    return device


def _resnet() -> ResNet:
    torch.manual_seed(0)
    return ResNet(SHAPE, 4, blocks=(1,), width=4)  # one stage: no strided 1x1 convolution


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({("fp32", False): 1.0, ("fp32", True): 0.92, ("bf16", False): 0.9, ("bf16", True): 0.85}, ("fp32", False)),
        ({("fp32", False): 1.0, ("fp32", True): 0.9, ("bf16", False): 0.9, ("bf16", True): 0.85}, ("fp32", True)),
        ({("fp32", False): 1.0, ("fp32", True): 0.7, ("bf16", False): 0.9, ("bf16", True): 0.5}, ("bf16", True)),
        ({("fp32", False): 1.0, ("fp32", True): 0.7, ("bf16", False): 0.9, ("bf16", True): 0.8}, ("fp32", True)),
    ],
)
def test_another_choice_must_pay(
    seconds: dict[tuple[str, bool], float], chosen: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)

    def measured(*arguments: object) -> dict[tuple[str, bool], float]:
        if len(arguments[4]) == 1:
            return {("fp32", False): 1e-9}  # so fast that all samples are taken
        assert arguments[4] == list(seconds)
        return seconds

    monkeypatch.setattr(precision, "_measure", lambda *a, turns=0: measured(*a))
    model = _resnet()
    device = _settled(model)
    assert (device.precision, device.channels_last) == chosen
    assert device.precision_reason.startswith("measured, samples/s: fp32 contiguous 16, ")
    assert model.stem[0].weight.is_contiguous(memory_format=torch.channels_last) == chosen[1]


def test_measuring_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    model, same = _resnet(), _resnet()
    device = _settled(model)
    assert "bf16 channels-last" in device.precision_reason
    for (name, value), other in zip(model.state_dict().items(), same.state_dict().values(), strict=True):
        assert value.equal(other), name
    assert all(parameter.grad is None for parameter in model.parameters())


class WithoutBf16(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise NotImplementedError("\"solve\" not implemented for 'BFloat16'\nand more")
        return super().forward(x)


def test_what_the_model_cannot_do_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    device = _settled(WithoutBf16(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)))
    assert (device.precision, device.channels_last) == ("fp32", False)
    assert "; bf16 contiguous fails: \"solve\" not implemented for 'BFloat16'" in device.precision_reason
    with pytest.raises(NotImplementedError):  # asked for, it is no matter of choice
        _settled(WithoutBf16(nn.Conv2d(3, 4, 8), nn.Flatten()), precision="bf16")


def test_what_cannot_be_is_refused_before_anything_is_measured(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_measure", lambda *_, **__: pytest.fail("measured"))
    words = ("device=cpu", "device.channels_last=auto", "model=cnn", "model.hidden=8")
    (line,) = is_quiet(cli(*words, "batch_size=100000"), code=2)
    assert line.startswith("batch_size: 100000 exceeds the ")
    loss = "loss={_target_: torch.nn.modules.loss.MultiMarginLoss}"
    (line,) = is_quiet(cli(*words, "~loss", f"+{loss}", "dataset.augment.cutmix=1"), code=2)
    assert line.startswith(
        "dataset.augment.cutmix: targets become class probabilities, but this loss takes class indices; set "
    )


def test_a_run_from_before_there_were_layouts_goes_on(
    cli: Callable[..., Answer], tiny_run: Answer, tmp_path: Path
) -> None:
    copy = tmp_path / "old"
    shutil.copytree(tiny_run.run, copy)
    config = copy / "config.yaml"
    text = config.read_text()
    assert "  channels_last: false\n" in text
    config.write_text(text.replace("  channels_last: false\n", ""))
    assert cli(f"run={copy}", verb="evaluate").code == 0
    answer = cli(f"resume={copy}", "epochs=3")
    assert answer.code == 0, answer.err
    assert config.read_text().count("channels_last: false") == 1


def test_without_a_choice_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    monkeypatch.setattr(precision, "_measure", lambda *_, **__: pytest.fail("measured"))
    device = _settled(MLP(SHAPE, 4, hidden=[3]))
    assert (device.precision, device.channels_last) == ("fp32", False)
    device = _settled(_resnet(), precision="fp32", channels_last=True)
    assert (device.precision, device.channels_last, device.precision_reason) == ("fp32", True, "as asked")
    assert not Device("cpu", precision="auto", channels_last="auto", deterministic=True).has_auto


def test_the_layout_that_corrupts_memory_is_refused(cli: Callable[..., Answer]) -> None:
    words = ("device=cpu", "model=resnet18", "model.width=8", "model.blocks=[1,1]", "limit_batches=1")
    answer = cli(*words, "device.channels_last=true")
    (line,) = is_quiet(answer, code=2)
    assert "device.channels_last: blocks.1.shortcut.0, a strided 1x1 convolution" in line
    assert cli(*words, "device.channels_last=auto", "dry_run=true").code == 0


def test_a_run_writes_what_was_chosen(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measure", lambda *_, **__: {("fp32", False): 1e-3, ("fp32", True): 5e-4})
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    words = ("device=cpu", "model=cnn", "model.hidden=8", "limit_batches=3", "epochs=1", "device.channels_last=auto")
    plan = cli(*words, "dry_run=true")
    assert "fp32, channels-last; measured, samples/s: fp32 contiguous 1.6e+04, fp32 channels-last 3.2e+04" in plan.out
    assert "; another start may choose otherwise\n" in plan.out
    assert "threads, given device.precision=fp32 device.channels_last=true\n" in plan.out
    answer = cli(*words)
    assert answer.out.startswith("device: fp32, channels-last; measured, samples/s: ")
    assert answer.code == 0, answer.err
    device = load_config(answer.run / "config.yaml", ()).values["device"]
    assert (device["precision"], device["channels_last"]) == ("fp32", True)
    monkeypatch.setattr(precision, "_measure", lambda *_, **__: pytest.fail("measured again"))
    assert cli(f"resume={answer.run}", "epochs=2").code == 0


BATCH_NORMS = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16 * 36, 4))
NO_NORMS = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16 * 36, 4))
STRIDED = nn.Sequential(nn.Conv2d(3, 16, 1, stride=2), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16 * 16, 4))
NUMBERS = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


@pytest.mark.parametrize(
    ("capability", "model", "chosen"),
    [
        (None, BATCH_NORMS, ("fp32", True)),
        (None, NO_NORMS, ("fp32", False)),
        (None, STRIDED, ("fp32", False)),  # where channels-last corrupts memory on a CPU
        (None, NUMBERS, ("fp32", False)),
        ((8, 0), BATCH_NORMS, ("bf16", True)),
        ((9, 0), STRIDED, ("bf16", True)),
        ((9, 0), NUMBERS, ("fp32", False)),
        ((9, 0), nn.Sequential(nn.Embedding(4, 4)), ("bf16", False)),
        ((7, 5), BATCH_NORMS, ("fp32", False)),
    ],
)
def test_null_is_settled_by_rule(
    capability: tuple[int, int] | None, model: nn.Module, chosen: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "synchronized_time", lambda *_: pytest.fail("a clock was read"))
    device = Device("cpu", precision=None, channels_last=None)
    if capability:
        device.torch_device = torch.device("cuda", 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    precision.choose_precision(device, copy.deepcopy(model), TASK, lambda _: pytest.fail("samples were made"))
    assert (device.precision, device.channels_last) == chosen
    assert device.precision_reason == "by rule for this kind of device and model; device=fastest measures"
    assert not device.measured


def test_what_is_asked_for_stays_where_the_rest_is_by_rule() -> None:
    for words, chosen in (
        ({"precision": "bf16", "channels_last": None}, ("bf16", True)),
        ({"precision": None, "channels_last": False}, ("fp32", False)),
        ({"precision": None, "channels_last": None, "deterministic": True}, ("fp32", True)),
    ):
        device = Device("cpu", **words)
        precision.choose_precision(device, copy.deepcopy(BATCH_NORMS), TASK, lambda _: pytest.fail("measured"))
        assert (device.precision, device.channels_last) == chosen


def test_only_what_is_asked_to_be_fastest_is_measured(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def measured(*arguments: Any) -> dict[tuple[str, bool], float]:
        seen.append(arguments)
        return {("fp32", False): 1e-3, ("fp32", True): 5e-4}

    monkeypatch.setattr(precision, "_measure", measured)
    words = ("model=cnn", "model.hidden=8", "limit_batches=1", "epochs=1")
    for device in ((), ("device=auto",), ("device=cpu",), ("device=cpu", "device.precision=null")):
        plan = cli(*words, *device, "dry_run=true")
        assert plan.code == 0, plan.err
        assert ("by rule for this kind of device and model" in plan.out) == (device != ("device=cpu",))
        assert "given device.precision" not in plan.out
    assert not seen
    for device in (("device=fastest",), ("device.precision=auto", "device.channels_last=auto")):
        assert "another start may choose otherwise" in cli(*words, *device, "dry_run=true").out
    assert seen


BUSY = "while True: sum(range(10_000))"


def _bits(cwd: Path, words: Sequence[str]) -> object:
    process = launch(*words, cwd=cwd, output=cwd / "said")
    assert finished(process, 300) == 0, (cwd / "said").read_text()
    found = contents(only_run(cwd))
    assert "summary.json" in found
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (2, ("limit_batches=2", "epochs=1")),
        pytest.param(10, ("epochs=1",), marks=pytest.mark.slow),
        pytest.param(10, ("model=resnet18", "limit_batches=4", "epochs=1"), marks=pytest.mark.slow),
    ],
)
def test_the_default_command_repeats_its_bits_beside_other_work(
    tmp_path: Path, starts: int, words: Sequence[str]
) -> None:
    """Busy processes come and go, so that whatever is timed takes now long, now short.

    One thread: two would wait for each other for minutes beside busy processes.
    """
    bits = []
    for number in range(starts):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2 * (number % 2))]
        try:
            (tmp_path / str(number)).mkdir()
            bits.append(_bits(tmp_path / str(number), (*words, "device.threads=1")))
        finally:
            for other in others:
                other.kill()
                other.wait()
    assert all(each == bits[0] for each in bits)


@pytest.mark.parametrize("model", ["cnn", "resnet18"])
def test_the_layout_changes_speed_not_results(cli: Callable[..., Answer], model: str) -> None:
    small = ("model.hidden=8",) if model == "cnn" else ("model.width=16", "model.blocks=[1,1]")
    words = ("device=cpu", f"model={model}", *small, "limit_batches=3", "epochs=1")
    losses = []
    for last in ("false", "true"):
        answer = cli(*words, f"device.channels_last={last}", f"output_dir={last}")
        assert answer.code == 0, answer.err
        (summary,) = (answer.cwd / last).glob("*/*/summary.json")
        losses.append(json.loads(summary.read_text())["test"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("optim", slow_where(["sgd", "adamw", "muon"], lambda name: name != "adamw"))
def test_a_run_resumes_bitwise_in_the_other_layout(cli: Callable[..., Answer], optim: str) -> None:
    """A checkpoint's tensors have one layout, and fused optimizers take memory as it lies."""
    words = (*("device=cpu", "model=resnet18", "model.width=16", "model.blocks=[1,1]", "device.channels_last=true"),)
    answer = cli(*words, f"optim={optim}", "ema=0.9", "limit_batches=4", "epochs=1", "save_every=2steps", "keep=9")
    assert answer.code == 0, answer.err
    unbroken = fingerprint(answer.run)
    shutil.rmtree(max((answer.run / "checkpoints").glob("step-*")))
    assert cli(f"resume={answer.run}").code == 0
    assert fingerprint(answer.run) == unbroken
