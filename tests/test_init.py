"""`init`: a run may begin with weights from elsewhere, of which a part stays as it is, and needs them only once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import TINY, Answer, call, fingerprint, is_quiet


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")


@pytest.fixture(scope="module")
def tuned(tiny_run: Answer, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A run from a file: names with a prefix, a classifier of other classes, one tensor too many."""
    here = tmp_path_factory.mktemp("tuned")
    tensors = {f"net.{name}": tensor for name, tensor in weights(tiny_run.run).items()}
    tensors |= {"net.head.weight": torch.zeros(3, 16), "net.head.bias": torch.zeros(3), "net.extra": torch.zeros(1)}
    save_file(tensors, here / "foreign.safetensors")
    return call(*TINY, "init.from=foreign.safetensors", "init.strip_prefix=net.", "init.freeze=layers.*", cwd=here)


def test_what_fits_is_loaded_and_what_is_frozen_stays(tuned: Answer, tiny_run: Answer) -> None:
    assert tuned.code == 0, tuned.err
    before, after = weights(tiny_run.run), weights(tuned.run)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("layers."))
    assert not torch.equal(before["head.weight"], after["head.weight"])
    words = (
        "loaded 2 of 4 tensors; 2 newly initialized: head.weight, head.bias; 1 unused in the file: extra",
        "init.freeze: 2 of 4 parameters stay as they are",
    )
    for text in (tuned.out, (tuned.run / "train.log").read_text()):
        assert all(line in text for line in words)


def test_a_resumed_run_needs_the_file_no_more_and_stays_frozen(tuned: Answer, tmp_path: Path) -> None:
    run = shutil.copytree(tuned.run, tmp_path / "run")
    again = call(f"resume={run}", "epochs=3", cwd=tmp_path)  # where there is no such file
    assert again.code == 0, again.err
    frozen = [name for name in weights(run) if name.startswith("layers.")]
    assert all(torch.equal(weights(run)[name], weights(tuned.run)[name]) for name in frozen)
    assert not torch.equal(weights(run)["head.weight"], weights(tuned.run)["head.weight"])


def test_without_epochs_a_run_of_another_is_tested_and_kept(tiny_run: Answer, tmp_path: Path) -> None:
    words = (*TINY, f"init.from={tiny_run.run}", "epochs=0")
    plan = call(*words, "dry_run=true", cwd=tmp_path)
    assert re.search(r"(?m)^ +init  init.from=.*: loaded 4 of 4 tensors$", plan.out), plan.out + plan.err
    kept = call(*words, cwd=tmp_path)
    assert kept.code == 0, kept.err
    summary, original = (json.loads((run / "summary.json").read_text()) for run in (kept.run, tiny_run.run))
    assert (summary["state"], summary["step"], summary["test"]) == ("done", 0, original["test"])
    shown = call(f"run={kept.run}", "device=cpu", "format=json", cwd=tmp_path, verb="evaluate")
    assert (shown.code, json.loads(shown.out)["step"]) == (0, 0), shown.err
    on = call(f"resume={kept.run}", "epochs=1", cwd=tmp_path)
    assert (on.code, "init.from" in on.out) == (0, False), on.out + on.err
    assert json.loads((kept.run / "summary.json").read_text())["step"] == 3


@pytest.fixture(scope="module")
def adapted(tiny_run: Answer, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A run in which a layer is adapted at low rank, one of its matrices hardly, and the head is trained as it is."""
    lora = ("init.lora.rank=2", "init.lora.also_train=head.*", "lr_scale={*.lora_a: 1e-30}", "optim=adamw", "ema=0.5")
    answer = call(*TINY, f"init.from={tiny_run.run}", *lora, cwd=tmp_path_factory.mktemp("adapted"))
    assert answer.code == 0, answer.err
    return answer


def test_adaptation_leaves_the_weights_and_trains_small_ones_beside_them(adapted: Answer, tiny_run: Answer) -> None:
    before, after = weights(tiny_run.run), weights(adapted.run)
    added = {f"layers.0.lora_{name}" for name in ("a", "b", "scale")}
    assert set(after) == set(before) | added
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("layers."))
    assert all(after[f"layers.0.lora_{name}"].abs().sum() > 0 for name in ("a", "b"))
    assert not torch.equal(before["head.weight"], after["head.weight"])
    trained = 2 * (64 + 16) + 16 * 10 + 10
    assert f"init.lora: 1 linear layer with matrices of rank 2; {trained:,} weights are trained" in adapted.out
    assert "lr_scale: *.lora_a at 1e-30 times the rate (1 parameter)" in adapted.out
    plan = call("--config-path", str(adapted.run), "--config-name", "config", "dry_run=true", cwd=adapted.cwd)
    assert f"{64 * 16 + 16 + trained:,}, {trained:,} of them trained" in plan.out


def test_an_adapted_run_resumes_bitwise_at_its_own_rates(adapted: Answer, tmp_path: Path) -> None:
    run = shutil.copytree(adapted.run, tmp_path / "run")
    first, last = sorted((run / "checkpoints").glob("step-*"))
    a = [load_file(step / "model.safetensors")["layers.0.lora_a"] for step in (first, last)]
    assert torch.equal(*a)
    shutil.rmtree(last)
    again = call(f"resume={run}", cwd=tmp_path)
    assert (again.code, "resumes at step 3" in again.out) == (0, True), again.err
    assert fingerprint(run) == fingerprint(adapted.run)


def test_what_is_exported_and_begun_with_is_the_sum(adapted: Answer, tiny_run: Answer, tmp_path: Path) -> None:
    words = (f"run={adapted.run}", "format=safetensors", f"output={tmp_path / 'plain.safetensors'}")
    assert call(*words, cwd=tmp_path, verb="export").code == 0
    plain, before = load_file(tmp_path / "plain.safetensors"), weights(tiny_run.run)
    assert set(plain) == set(before)
    assert not torch.equal(plain["layers.0.weight"], before["layers.0.weight"])
    bare = max((adapted.run / "checkpoints").glob("step-*")) / "ema.safetensors"
    for source in (adapted.run, "plain.safetensors", bare):
        plan = call(*TINY, f"init.from={source}", "epochs=0", cwd=tmp_path)
        assert "loaded 4 of 4 tensors\n" in plan.out, plan.err
    summaries = [adapted.run / "summary.json", *tmp_path.glob("outputs/*/*/summary.json")]
    losses = [json.loads(file.read_text())["test"]["loss"] for file in summaries]
    assert losses[1:] == [pytest.approx(losses[0], abs=1e-6)] * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init.from=nowhere.pth"], "init.from: there is no file 'nowhere.pth'"),
        (["init.from=."], "init.from: there is no run at '.'"),
        (["init.from=other.safetensors"], "none of its tensors is in this model; it has a.b"),
        (
            ["init.from=other.safetensors", "init.strip_prefix=a."],
            "init.from: other.safetensors: is of another model or input",
        ),
        (["init.freeze=body.*"], "init.freeze: 'body.*' matches no parameter; choices: layers.0.weight"),
        (["init.freeze=[layers.*,*head*]"], "init.freeze: leaves no parameter to train"),
        (["init.lora.also_train=head.*"], "init.lora.rank: with 0 no layer is adapted"),
        (
            ["init.lora.rank=2", "init.lora.layers=layer.*"],
            "'layer.*' matches no linear layer; did you mean 'layers.*'?",
        ),
        (
            ["init.lora.rank=2", "init.lora.also_train=tail"],
            "init.lora.also_train: 'tail' matches no parameter; choices: layers.0",
        ),
        (
            ["init.lora.rank=2", "init.lora.also_train=*"],
            "init.lora.also_train: matches all of these layers, so that none is left",
        ),
        (
            ["init.lora.rank=2", "init.lora.also_train=head.*", "init.freeze=head.*"],
            "init.freeze: matches head.weight, which init.lora trains",
        ),
        (["init.lora.rank=2", "init.freeze=layers.*"], "init.freeze: matches layers.0.lora_a, which init.lora trains"),
        (
            ["init.lora.rank=11"],
            "init.lora.rank: 11 exceeds the width of head (16 to 10); set 10 or less",
        ),
        (
            ["init.lora.rank=17", "init.lora.also_train=head.*"],
            "init.lora.rank: 17 exceeds the width of layers.0 (64 to 16); set 16 or less",
        ),
        (["lr_scale={haed.*: 2}"], "lr_scale: 'haed.*' matches no trained parameter; did you mean 'head.*'?"),
        (["lr_scale={head.*: 2}", "init.freeze=head.*"], "lr_scale: 'head.*' matches no trained parameter"),
        (["lr_scale={head.*: 0}"], "lr_scale: must be a number above 0 for each key or null, not {'head.*': 0}"),
        (["init.strip_prefix=3"], "init.strip_prefix: must be a text or null, not 3"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], said: str, tmp_path: Path) -> None:
    save_file({"a.b": torch.zeros(2), "a.layers.0.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    (line,) = is_quiet(call(*TINY, *words, cwd=tmp_path), code=2)
    assert said in line
    assert not (tmp_path / "outputs").exists()
