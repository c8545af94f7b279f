"""A training run from its command line to the directory it leaves."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from bigmodel.config.instantiate import instantiate
from bigmodel.config.location import conf_directory
from bigmodel.interfaces import Batch
from bigmodel.models.mlp import MLP
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.training.state import TrainState
from conftest import TINY, Answer, fingerprint, is_quiet, records, slow_where
from forks import finished
from warm import only_sweep, sweep, swept

FRAGILE = """
import torch
from torch import nn
class Fragile(nn.Module):
    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.head, self.fail = nn.Linear(64, 10), fail
    def forward(self, x):
        if self.fail:
            raise RuntimeError("shapes do not fit")
        return self.head(x.flatten(1))
"""


def _weights(run: Path, step: int | None = None, name: str = "model") -> dict[str, Any]:
    found = sorted((run / "checkpoints").glob("step-*"))
    directory = found[-1] if step is None else run / "checkpoints" / f"step-{step:08d}"
    return load_file(directory / f"{name}.safetensors")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(f"{word} in {path}"))


def test_the_run_directory_is_complete(tiny_run: Answer) -> None:
    run = tiny_run.run
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "environment.json",
        "train.log",
        "metrics.jsonl",
        "summary.json",
        "checkpoints",
    }
    assert {path.name for path in (run / "checkpoints" / "step-00000006").iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "MANIFEST.json",
    }
    assert _json(run / "checkpoints" / "last.json") == {"step": 6}
    assert _json(run / "checkpoints" / "best.json")["step"] in (3, 6)
    environment = _json(run / "environment.json")
    assert {"time", "command", "git", "python", "versions", "cores", "device", "dataset"} <= set(environment)
    assert environment["dataset"].startswith("sha256:")


def test_metrics_have_their_fields(tiny_run: Answer) -> None:
    lines = [json.loads(line) for line in (tiny_run.run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [
        (2, "train"),
        (3, "val"),
        (4, "train"),
        (6, "train"),
        (6, "val"),
        (lines[-1]["step"], "test"),
    ]
    train = {"loss", "accuracy", "lr", "grad_norm", "samples_per_s", "data_s", "step_s"}
    held = {"loss", "accuracy", "top5", "best", "seconds"}
    for line in lines:
        assert set(line) == {"step", "epoch", "split"} | (train if line["split"] == "train" else held)
        assert line["epoch"] == pytest.approx(line["step"] / 3)
        assert 0 <= line["accuracy"] <= 1
        assert line["loss"] > 0


def test_the_summary_tells_how_it_ended(tiny_run: Answer) -> None:
    summary = _json(tiny_run.run / "summary.json")
    assert summary["state"] == "done"
    assert (summary["step"], summary["steps"], summary["monitor"]) == (6, 6, "val/accuracy")
    assert summary["seconds"] > 0
    test = summary["test"]
    assert len(test["per_class_accuracy"]) == len(test["confusion"]) == len(summary["classes"]) == 10
    samples = sum(map(sum, test["confusion"]))
    assert samples == 3 * 64
    assert test["accuracy"] == pytest.approx(sum(test["confusion"][i][i] for i in range(10)) / samples)


def test_log_and_output_are_plain_text(tiny_run: Answer) -> None:
    log = (tiny_run.run / "train.log").read_text(encoding="utf-8")
    assert "val: loss" in log
    assert "saved" in log
    for text in (log, tiny_run.out):
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_the_end_shows_what_to_type_next(tiny_run: Answer) -> None:
    run = tiny_run.run.relative_to(tiny_run.cwd)
    for text in (f"bigmodel-evaluate run={run}", f"bigmodel-predict run={run}", f"bigmodel-train resume={run}", "best"):
        assert text in tiny_run.out


def test_a_dry_run_shows_the_plan_and_makes_nothing(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY, "dry_run=true")
    assert answer.code == 0, answer.err
    assert "parameters" in answer.out
    assert f"{64 * 16 + 16 + 16 * 10 + 10:,}" in answer.out
    assert "6 (2 epochs x 3), 64 samples each" in answer.out
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "in the device's memory (92 kB, not above resident_gb=4)"),
        (["resident_gb=0"], "streamed by 2 workers (92 kB, above resident_gb=0)"),
        (["resident_gb=0", "workers=0"], "streamed without workers (92 kB, above resident_gb=0)"),
    ],
)
def test_the_plan_says_how_the_data_is_served_and_why(cli: Callable[..., Answer], words: list[str], told: str) -> None:
    answer = cli(*TINY, "dry_run=true", *words)
    assert answer.code == 0, answer.err
    assert told in answer.out


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_mixed_samples_train(cli: Callable[..., Answer], loss: str) -> None:
    mixing = ("dataset.augment.mixup=0.2", "dataset.augment.cutmix=1", "dataset.augment.cutout=2")
    answer = cli(*TINY[:-2], "epochs=4", "log_every=1epoch", f"loss={loss}", *mixing, "optim=adam", "optim.lr=0.01")
    assert answer.code == 0, answer.err
    trained = [record for record in records(answer.run) if record["split"] == "train"]
    assert trained[-1]["loss"] < 0.9 * trained[0]["loss"]
    assert 0.15 < trained[-1]["accuracy"] <= 1  # a tenth is chance


def test_an_augmentation_that_does_not_fit_the_images_is_refused(cli: Callable[..., Answer]) -> None:
    lines = is_quiet(cli(*TINY, "dataset.augment.crop=8", "dataset.augment.cutout=9"), code=2)
    assert [line.partition(": ")[0] for line in lines] == ["dataset.augment.crop", "dataset.augment.cutout"]
    (line,) = is_quiet(cli(*TINY, "dataset.augment.flip=sometimes"), code=2)
    assert line == "dataset.augment.flip: must be true or false or one of alternating, not 'sometimes'"


def test_divergence_names_the_samples(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY, "optim.lr=1e30", "schedule=constant")
    (line,) = is_quiet(answer, code=4)
    assert re.match(r"diverged at step 1 \(samples (\d+, ){5}\.\.\. \(64 in all\)\): loss ", line), line


def test_pieces_make_the_same_update(cli: Callable[..., Answer], tmp_path: Path) -> None:
    runs = []
    for pieces in (1, 3):
        cwd = tmp_path / str(pieces)
        cwd.mkdir()
        answer = cli(*TINY, "optim.lr=0.01", f"accumulate={pieces}", cwd=cwd)
        assert answer.code == 0, answer.err
        runs.append(answer.run)
    whole, parts = map(_weights, runs)
    for name, tensor in whole.items():
        assert tensor.allclose(parts[name], rtol=1e-4, atol=1e-6), name
    losses = [[r["loss"] for r in records(run)] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_clip_norm_bounds_the_update(cli: Callable[..., Answer]) -> None:
    plain = ("optim.momentum=0", "optim.nesterov=false", "optim.weight_decay=0", "optim.lr=1", "schedule=constant")
    answer = cli(*TINY, *plain, "clip_norm=0.001", "save_every=1steps", "keep=9")
    assert answer.code == 0, answer.err
    first, second = _weights(answer.run, 1), _weights(answer.run, 2)
    moved = math.sqrt(sum(float((second[name] - first[name]).double().square().sum()) for name in first))
    assert moved == pytest.approx(0.001, rel=0.05)
    assert all(r["grad_norm"] > 0.01 for r in records(answer.run) if r["split"] == "train")  # as it was before


def test_ema_is_saved_and_is_what_is_evaluated(cli: Callable[..., Answer], tiny_run: Answer) -> None:
    answer = cli(*TINY, "log_every=2steps", "ema=0.99")
    assert answer.code == 0, answer.err
    average, live = _weights(answer.run, name="ema"), _weights(answer.run)
    assert average.keys() == live.keys()
    assert not average["head.weight"].equal(live["head.weight"])
    assert live["head.weight"].equal(_weights(tiny_run.run)["head.weight"])  # the average changes no training
    with_ema, without = ([r["loss"] for r in records(run) if r["split"] == "val"] for run in (answer.run, tiny_run.run))
    assert with_ema != without
    assert (answer.run / "checkpoints" / "best.json").is_file()


def test_the_average_of_an_infinite_buffer_is_that_buffer(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "masked.py").write_text(
        "import torch\n\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, num_classes: int) -> None:\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(64, num_classes)\n"
        "        self.register_buffer('mask', torch.full((10, 10), float('-inf')).triu(1))\n\n"
        "    def forward(self, x):\n"
        "        return self.head(x.flatten(1)) @ self.mask.softmax(1)\n"
    )
    given = ("~model.channels", "~model.hidden", "~model.input_shape", "limit_batches=3", "epochs=1", "ema=0.9")
    answer = cli("device=cpu", "trust=[masked]", "model._target_=masked.Net", *given, "listeners=[]", cwd=tmp_path)
    assert answer.code == 0, answer.err
    average, live = _weights(answer.run, name="ema"), _weights(answer.run)
    assert average["mask"].equal(live["mask"])
    assert all(math.isfinite(record["loss"]) for record in records(answer.run))


@pytest.mark.slow
def test_ema_soon_forgets_the_random_start(cli: Callable[..., Answer]) -> None:
    """The average after N updates, by hand: of a decay far beyond the run the warm-up alone counts."""
    words = (*TINY, "log_every=1steps", "save_every=1steps", "keep=9", "ema=0.9999")
    plan = cli(*words, "dry_run=true")
    warning = "ema: 0.9999 averages over 10,000 updates, and this run has 6: its warm-up ends at 0.4; ema=0.5 spans"
    assert warning in plan.out
    answer = cli(*words)
    assert f"warning: {warning}" in answer.out
    expected = None
    for step in range(1, 7):
        live, average = _weights(answer.run, step)["head.weight"], _weights(answer.run, step, name="ema")["head.weight"]
        decay = step / (9 + step)
        expected = live if expected is None else decay * expected + (1 - decay) * live
        if step == 1:
            expected = average  # a tenth of the random start is in it
            assert not average.equal(live)
        assert torch.allclose(average, expected, rtol=1e-5, atol=1e-7)
    kept = 1.0
    for step in range(1, 7):
        kept *= step / (9 + step)
    assert kept < 2e-4  # of the random start
    assert "warning" not in cli(*words[:-1], "ema=0.5", "dry_run=true").out
    assert "warning" not in cli(*words[:-1], "ema=0.5", "epochs=1", "dry_run=true").out  # nothing shorter to advise


def test_patience_stops_early_and_a_resume_stays_stopped(cli: Callable[..., Answer]) -> None:
    words = (*TINY[:-1], "epochs=50", "optim.lr=1e-12", "patience=2", "evaluate_every=2steps", "monitor=val/loss")
    answer = cli(*words, "optim.momentum=0", "optim.nesterov=false")
    assert answer.code == 0, answer.err
    summary = _json(answer.run / "summary.json")
    assert summary["state"] == "early_stopped"
    assert summary["best"]["since"] == 2
    assert summary["step"] < 150
    before = fingerprint(answer.run), records(answer.run)
    assert cli(f"resume={answer.run}").code == 0  # as after a kill while the test split was measured
    assert (fingerprint(answer.run), records(answer.run)) == before


def test_overfitting_one_batch_drives_the_loss_to_nothing(cli: Callable[..., Answer]) -> None:
    words = ("overfit_batch=true", "dataset.augment.crop=0", "log_every=1epoch", "evaluate_every=3epochs")
    answer = cli(*TINY[:2], "model.hidden=[64]", *words, "epochs=3", "optim=adam", "optim.lr=0.01")
    assert answer.code == 0, answer.err
    losses = [r["loss"] for r in records(answer.run) if r["split"] == "train"]
    assert losses[-1] < 0.05 < losses[0]


@pytest.mark.parametrize(
    ("lr", "every"), [("1e30", "1steps"), ("1e38", "1steps"), ("1e30", "9epochs"), ("1e40", "9epochs")]
)
def test_divergence_ends_the_run_and_reaches_no_checkpoint(cli: Callable[..., Answer], lr: str, every: str) -> None:
    words = ("schedule=constant", "save_every=1steps", f"evaluate_every={every}", "monitor=val/loss", "keep=9")
    answer = cli(*TINY, f"optim.lr={lr}", *words)
    (line,) = is_quiet(answer, code=4)
    assert "step" in line
    assert "optim.lr" in line
    for file in (answer.run / "checkpoints").glob("step-*/*.safetensors"):
        for name, tensor in load_file(file).items():
            assert tensor.isfinite().all(), (file, name)
    for pointer in (answer.run / "checkpoints").glob("*.json"):
        _json(pointer)
    assert _json(answer.run / "summary.json")["state"] == "failed"
    assert "Traceback" in (answer.run / "train.log").read_text()


def test_the_test_split_is_measured_with_the_best_weights(cli: Callable[..., Answer]) -> None:
    # the rate explodes after the first half, so the best is not the last
    words = (
        "schedule=step",
        "schedule.milestones=[0.5]",
        "schedule.gamma=1e3",
        "monitor=val/loss",
        "save_every=1steps",
    )
    answer = cli(*TINY[:-2], "epochs=2", "optim.lr=0.01", *words, "log_every=1epoch")
    assert answer.code == 0, answer.err
    lines = records(answer.run)
    best = _json(answer.run / "checkpoints" / "best.json")
    last = lines[-2]["step"]
    assert best["step"] < last
    assert lines[-1]["split"] == "test"
    assert lines[-1]["step"] == best["step"]
    val = {r["step"]: r["loss"] for r in lines if r["split"] == "val"}
    assert best["value"] == val[best["step"]] == min(val.values())
    assert abs(lines[-1]["loss"] - val[best["step"]]) < abs(lines[-1]["loss"] - val[last])
    assert (answer.run / "checkpoints" / f"step-{best['step']:08d}").is_dir()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_measures_its_best_weights_too(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # what is tested needs no compiler
    words = ("schedule=step", "schedule.milestones=[0.5]", "schedule.gamma=1e3", "monitor=val/loss")
    answer = cli(*TINY, "optim.lr=0.01", "device.compile=true", *words)
    assert answer.code == 0, answer.err
    lines = records(answer.run)
    assert (lines[-1]["split"], lines[-1]["step"]) == ("test", 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_forward_and_loss_are_compiled_as_one_and_change_nothing(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable:
        graphs.append(graph.code)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    prints = []
    for compiled in ("false", "true"):
        words = (f"output_dir={compiled}", f"device.compile={compiled}")
        answer = cli(*TINY, "epochs=1", "optim=muon", "accumulate=2", *words)
        assert answer.code == 0, answer.err
        (run,) = (answer.cwd / compiled).glob("*/*")
        prints.append(fingerprint(run))
        assert bool(graphs) == (compiled == "true")
    assert prints[0] == prints[1]
    assert any("linear" in code and "cross_entropy" in code for code in graphs)
    assert any("baddbmm" in code for code in graphs)  # Muon's


@pytest.mark.filterwarnings("ignore")
def test_a_compiler_that_fails_is_told_in_a_line(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(_: torch.fx.GraphModule, __: object) -> Callable:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    answer = cli(*TINY, "device.compile=true")
    (line,) = is_quiet(answer, code=2)
    assert line == "device.compile: torch's compiler failed: No working C++ compiler found; set it to false"
    assert not list(answer.cwd.glob("outputs/*"))


@pytest.mark.parametrize(("keep", "left"), [(2, 2), (3, 3), (4, 4)])
def test_old_checkpoints_go_and_two_stay(cli: Callable[..., Answer], keep: int, left: int) -> None:
    answer = cli(*TINY, "save_every=1steps", f"keep={keep}", "evaluate_every=100epochs")
    assert answer.code == 0, answer.err
    steps = sorted(int(path.name[5:]) for path in (answer.run / "checkpoints").glob("step-*"))
    assert steps == list(range(7 - left, 7))
    assert not list((answer.run / "checkpoints").glob(".tmp-*"))


def _node(group: str, name: str) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(conf_directory() / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    return node


OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("constant", "linear", "cosine", "one_cycle", "step")


@pytest.mark.parametrize(
    ("optim", "schedule", "loss"),  # a schedule does not know the loss
    [
        *((optim, schedule, "cross_entropy") for optim in OPTIMIZERS for schedule in SCHEDULES),
        *((optim, "constant", "mse") for optim in OPTIMIZERS),
    ],
)
def test_every_optimizer_schedule_and_loss_trains(optim: str, schedule: str, loss: str) -> None:
    device = Device(kind="cpu")
    device.seed_rng(0, "test")
    model = MLP([1, 8, 8], 10, hidden=(16, 16))
    optimizers = instantiate("optim", _node("optim", optim), model=model)
    job = TrainState(
        model=model,
        task=Classification(instantiate("loss", _node("loss", loss)), 10),
        optimizers=optimizers if isinstance(optimizers, list) else [optimizers],
        schedule=instantiate("schedule", _node("schedule", schedule)),
        device=device,
        seed=0,
        steps=20,
    )
    batch = Batch(torch.randn(32, 1, 8, 8), torch.arange(32) % 10)
    losses = []
    for _ in range(20):
        job.train_step(batch)
        losses.append(job.pop_train_metrics()["loss"])
    assert losses[-1] < losses[0]
    assert all(map(math.isfinite, losses))


def test_a_sweep_makes_a_run_for_each_combination(tmp_path: Path) -> None:
    code, said = swept(*TINY[:-1], "epochs=1", "optim.lr=0.1,0.01", "seed=1,2", cwd=tmp_path)
    assert code == 0, said
    runs = [path.parent for path in only_sweep(tmp_path).glob("*/summary.json")]
    assert len(runs) == 4
    assert len({fingerprint(run)["step-00000003/model.safetensors"] for run in runs}) == 4
    assert {_json(run / "summary.json")["state"] for run in runs} == {"done"}


@pytest.mark.parametrize(
    "words",
    slow_where(
        [["optim.lrr=0.1,0.2"], ["optim.lr=0.1,x"], ["model=mlp,resnt18"], ["seed=1,-2"]],
        lambda words: words != ["optim.lr=0.1,x"],
    ),
)
def test_a_sweep_with_a_mistake_starts_nothing(tmp_path: Path, words: list[str]) -> None:
    here, said = tmp_path / "here", tmp_path / "said"
    code = finished(sweep(*TINY[:1], *words, cwd=here, output=said))
    assert len(is_quiet(Answer(code, "", said.read_text(), here), code=2)) == 1
    assert list(here.iterdir()) == []


def test_a_job_that_fails_stops_no_other(tmp_path: Path) -> None:
    cwd = tmp_path / "project"
    cwd.mkdir()
    (cwd / "fragile_pkg.py").write_text(FRAGILE)
    own = ("~model", "+model={_target_: fragile_pkg.Fragile, fail: false}", "trust=[fragile_pkg]")
    which = "optim.lr=0.1,1e37,0.01"
    code, said = swept(*own, "limit_batches=4", "epochs=1", "device=cpu", "schedule=constant", which, cwd=cwd)
    assert code == 4, said
    states = [_json(path)["state"] for path in sorted(only_sweep(cwd).glob("*/summary.json"), key=str)]
    assert states == ["done", "failed", "done"], said
    assert re.search(r"failed.*\b1\b", said), said  # which job it was


def test_a_run_without_listeners_says_nothing(cli: Callable[..., Answer], tiny_run: Answer) -> None:
    answer = cli(*TINY, "log_every=2steps", "listeners=[]")
    assert answer.code == 0, answer.err
    assert answer.out == ""
    assert records(answer.run) == records(tiny_run.run)


def test_the_csv_listener_writes_a_table(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY, "log_every=1steps", "listeners=[console,csv]")
    assert answer.code == 0, answer.err
    with (answer.run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), row["split"], float(row["loss"])) for row in rows] == [
        (r["step"], r["split"], r["loss"]) for r in records(answer.run)
    ]


@pytest.mark.filterwarnings("ignore")
def test_the_tensorboard_listener_writes_events(cli: Callable[..., Answer]) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an optional extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    answer = cli(*TINY, "log_every=2steps", "listeners=[tensorboard]")
    assert answer.code == 0, answer.err
    events = EventAccumulator(str(answer.run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6]
    assert [event.step for event in events.Scalars("val/accuracy")] == [3, 6]
    (text,) = events.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert shown.replace("    ", "", 1).splitlines()[0] == (answer.run / "config.yaml").read_text().splitlines()[0]
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events.PluginTagToContent("hparams")
    told = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert told["optim.lr"].number_value == 0.05
    assert told["optim"].string_value == "bigmodel.optim.sgd.sgd"
    assert told["model.hidden"].string_value == "[16]"
    assert "output_dir" not in told
    metrics = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment.metric_infos
    assert {"val/accuracy", "test/accuracy", "best/val/accuracy"} <= {metric.name.tag for metric in metrics}
    best = json.loads((answer.run / "summary.json").read_text())["best"]
    assert events.Scalars("best/val/accuracy")[0].value == pytest.approx(best["value"])


def test_a_listener_that_is_not_installed_is_told_before_anything_is_made(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    answer = cli(*TINY, "listeners=[tensorboard]")
    (line,) = is_quiet(answer, code=2)
    assert "pip install" in line
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.slow
def test_a_closed_stdout_stops_no_training(tmp_path: Path) -> None:
    words = " ".join(TINY)
    words += " epochs=30 log_every=1steps evaluate_every=30epochs save_every=30epochs"
    command = f"{sys.executable} -m bigmodel train {words} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1
    (summary,) = tmp_path.glob("outputs/*/*/summary.json")
    assert _json(summary)["state"] == "done"
    assert _json(summary)["step"] == 90


@pytest.mark.slow
def test_an_ascii_terminal_stops_no_training(tmp_path: Path) -> None:
    place = tmp_path / "läufe"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    ascii_only = subprocess.run(
        [sys.executable, "-m", "bigmodel", "train", *TINY, f"output_dir={place}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=60,
    )
    assert ascii_only.returncode == 0, ascii_only.stderr
    assert len(list(place.glob("*/*/summary.json"))) == 1


def test_streamed_data_trains_the_same_bits(cli: Callable[..., Answer], tiny_run: Answer) -> None:
    answer = cli(*TINY, "log_every=2steps", "resident_gb=0", "workers=0")
    assert answer.code == 0, answer.err
    assert fingerprint(answer.run) == fingerprint(tiny_run.run)
    assert records(answer.run) == records(tiny_run.run)


def test_two_starts_give_two_directories_and_the_same_weights(cli: Callable[..., Answer], tiny_run: Answer) -> None:
    first = cli(*TINY, "log_every=2steps")
    assert first.run.name != tiny_run.run.name
    assert fingerprint(first.run) == fingerprint(tiny_run.run)
    other = cli(*TINY, "log_every=2steps", "seed=1", "output_dir=other")
    (run,) = (other.cwd / "other").glob("*/*")
    assert fingerprint(run) != fingerprint(tiny_run.run)


def test_many_directories_in_one_second_are_distinct(tmp_path: Path) -> None:
    from bigmodel.runs.directory import create_run_directory

    made = [create_run_directory(tmp_path) for _ in range(32)]
    assert len(set(made)) == 32
    assert all(path.is_dir() for path in made)


def test_the_rate_follows_the_schedule(cli: Callable[..., Answer]) -> None:
    words = ("schedule=linear", "schedule.warmup=0", "optim.lr=0.1", "log_every=1steps")
    rates = [r["lr"] for r in records(cli(*TINY, *words).run) if r["split"] == "train"]
    assert rates == pytest.approx([0.1 * (1 - (step + 0.5) / 6) for step in range(6)])
    assert all(later < earlier for earlier, later in pairwise(rates))
