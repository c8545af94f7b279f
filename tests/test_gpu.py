"""What only a GPU can show. Each test skips where there is none."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable

import pytest
import torch

from bigmodel.config.saved import load_config
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.loader import ImageLoader
from bigmodel.datasets.images.source import InMemoryImages
from bigmodel.errors import DivergedError
from bigmodel.interfaces import Batch, LoaderOptions
from bigmodel.models.resnet import ResNet
from bigmodel.optim.muon_sgd import muon_sgd
from bigmodel.optim.schedules import Linear
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training.state import TrainState
from conftest import Answer, fingerprint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]
SMALL = ("device=cuda", "model=resnet18", "model.width=16", "model.blocks=[1,1]", "limit_batches=4", "epochs=2")


def _loss(answer: Answer) -> float:
    assert answer.code == 0, answer.err
    return float(json.loads((answer.run / "summary.json").read_text())["test"]["loss"])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("last", ["true", "false"])
def test_trains_in_every_precision_and_layout(cli: Callable[..., Answer], precision: str, last: str) -> None:
    assert 0 < _loss(cli(*SMALL, f"device.precision={precision}", f"device.channels_last={last}")) < 10


def test_auto_goes_by_rule(cli: Callable[..., Answer]) -> None:
    answer = cli("device=auto", *SMALL[1:])
    _loss(answer)
    device = load_config(answer.run / "config.yaml", ()).values["device"]
    ampere = torch.cuda.get_device_capability() >= (8, 0)
    assert (device["precision"], device["channels_last"]) == (("bf16", True) if ampere else ("fp32", False))
    assert "; by rule for this kind of device and model" in cli("device=auto", *SMALL[1:], "dry_run=true").out


def test_fastest_measures_and_says_so(cli: Callable[..., Answer]) -> None:
    answer = cli("device=fastest", *SMALL[1:])
    _loss(answer)
    device = load_config(answer.run / "config.yaml", ()).values["device"]
    assert device["precision"] in ("fp32", "tf32", "bf16")
    assert device["channels_last"] in (True, False)
    assert "measured, samples/s" in cli("device=fastest", *SMALL[1:], "dry_run=true").out


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
@pytest.mark.parametrize("how", ["true", "graphs"])
def test_compiled_equals_uncompiled_nearly(cli: Callable[..., Answer], how: str) -> None:
    words = (*SMALL, "optim=muon", "optim.filters=true", "accumulate=2")
    plain = cli(*words, "output_dir=plain")
    compiled = cli(*words, "output_dir=compiled", f"device.compile={how}")
    losses = []
    for answer, folder in ((plain, "plain"), (compiled, "compiled")):
        assert answer.code == 0, answer.err
        (summary,) = (answer.cwd / folder).glob("*/*/summary.json")
        losses.append(json.loads(summary.read_text())["test"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_deterministic_runs_are_bitwise_equal(cli: Callable[..., Answer]) -> None:
    prints = []
    for folder in ("a", "b"):
        answer = cli(*SMALL, "device.deterministic=true", f"output_dir={folder}")
        assert answer.code == 0, answer.err
        (run,) = (answer.cwd / folder).glob("*/*")
        prints.append(fingerprint(run))
    assert prints[0] == prints[1]


def test_a_save_beside_training_holds_the_weights_of_its_step(cli: Callable[..., Answer]) -> None:
    """Copies through pinned memory must be whole before the next update changes what they are of."""
    one = cli(*SMALL, "device.deterministic=true", "save_every=1steps", "keep=99", "output_dir=one")
    two = cli(*SMALL, "device.deterministic=true", "save_every=8steps", "output_dir=two")
    assert one.code == two.code == 0, one.err + two.err
    (run,), (other,) = (one.cwd / "one").glob("*/*"), (two.cwd / "two").glob("*/*")
    first = next(iter((run / "checkpoints").glob("step-00000003")))
    assert first.is_dir()
    last = "step-00000008"
    a = {name: digest for name, digest in fingerprint(run).items() if name.startswith(last)}
    b = {name: digest for name, digest in fingerprint(other).items() if name.startswith(last)}
    assert a
    assert a == b
    for path in (run / "checkpoints").glob("step-*"):  # an earlier one leads to the same end
        if int(path.name[5:]) > 3:
            shutil.rmtree(path)
    assert cli(f"resume={run}").code == 0
    assert {name: digest for name, digest in fingerprint(run).items() if name.startswith(last)} == b


def _repeat(job: TrainState, batch: Batch, count: int) -> None:
    for _ in range(count):
        job.train_step(batch)


def test_an_update_waits_for_nothing() -> None:
    device = Device("cuda")
    device.configure_torch()
    model = ResNet((3, 32, 32), 10, blocks=(1, 1), width=16).cuda()
    task = Classification(CrossEntropy(), 10)
    optimizers = muon_sgd(model, bias_lr=0.1)
    job = TrainState(model=model, task=task, optimizers=optimizers, schedule=Linear(), device=device, seed=0, steps=99)
    inputs = torch.randn(64, 3, 32, 32, device="cuda")
    batch = Batch(inputs, torch.arange(64, device="cuda") % 10)
    job.train_step(batch)  # libraries load, and wait for it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            _repeat(job, batch, 8)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    bad = job.step
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    job.train_step(batch._replace(inputs=inputs * float("nan")))
    with pytest.raises(DivergedError, match=f"at step {bad}: loss nan"):
        _repeat(job, batch, 4)
    assert job.step == bad
    assert all(now.equal(before) for now, before in zip(model.parameters(), weights, strict=True))


def test_memory_that_runs_out_is_told(cli: Callable[..., Answer]) -> None:
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**27) / total)
    try:  # the weights fit, what a step keeps of a thousand images does not
        answer = cli(*SMALL[:2], "batch_size=1024", "limit_batches=1")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert answer.code == 6, answer.err
    assert "accumulate=" in answer.err


def test_a_resumed_run_in_channels_last_is_the_unbroken_one(cli: Callable[..., Answer]) -> None:
    answer = cli(*SMALL, "device.deterministic=true", "device.channels_last=true", "save_every=4steps", "keep=9")
    assert answer.code == 0, answer.err
    unbroken = fingerprint(answer.run)
    shutil.rmtree(max((answer.run / "checkpoints").glob("step-*")))
    assert cli(f"resume={answer.run}").code == 0
    assert fingerprint(answer.run) == unbroken


def test_batches_are_augmented_without_waiting() -> None:
    augment = ImageAugment(flip="alternating", crop=2, colour=0.5, cutout=3, mixup=0.2, cutmix=1.0)
    pixels, labels = torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8), torch.arange(512) % 10
    dataset = ImageDataset(
        classes=[str(number) for number in range(10)],
        input_shape=(3, 32, 32),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        val_fraction=0.0,
        augment=augment,
        sources={"train": InMemoryImages(pixels, labels)},
        sizes={"train": 512},
        fingerprint="",
    )
    batches = ImageLoader(dataset, LoaderOptions(torch.device("cuda"), 64, seed=0)).train_batches(0, 16)
    for _ in range(8):  # the first epoch: what is made once is made
        next(batches)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(7):
                next(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_trace_has_the_kernels(cli: Callable[..., Answer]) -> None:
    answer = cli(*SMALL[:4], "epochs=2", "profile=true")
    assert answer.code == 0, answer.err
    events = json.loads((answer.run / "trace.json").read_text())["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)


def test_the_finders_find(cli: Callable[..., Answer]) -> None:
    answer = cli("device=auto", *SMALL[1:4], "limit_batches=4", "epochs=1", "batch_size=auto", "optim.lr=auto")
    assert answer.code == 0, answer.err
    tree = load_config(answer.run / "config.yaml", ()).values
    assert tree["batch_size"] >= 16
    assert 0 < tree["optim"]["lr"] < 10


def test_a_checkpoint_answers_on_the_other_device(cli: Callable[..., Answer]) -> None:
    answer = cli(*SMALL)
    assert answer.code == 0, answer.err
    found = [cli(f"run={answer.run}", f"device={kind}", verb="evaluate") for kind in ("cuda", "cpu")]
    assert [one.code for one in found] == [0, 0], found
