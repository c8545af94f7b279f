"""Molecules through the commands: pre-trained, trained on from there, and told of raw strings in the target's units."""

import io
import json
import re

import pytest

import bigmodel
from conftest import Answer, call

SIZE = ("model.layers=1", "model.width=16", "model.heads=2", "dataset.context=16", "device=cpu", "device.threads=1")
OFTEN = ("optim=adamw", "optim.lr=0.02", "batch_size=16", "evaluate_every=12epochs", "save_every=12epochs")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A run that tells how much a chain weighs, 14 for a carbon and 80 for a bromine, after it has guessed tokens."""
    here = tmp_path_factory.mktemp("weights")
    rows = [f"{'C' * (n % 9)}{('Br', 'C')[n % 2]},{14 * (n % 9) + (80, 14)[n % 2]}" for n in range(180)]
    (here / "chains.csv").write_text("\n".join(["smiles,weight", *rows]) + "\n", encoding="utf-8")
    masked = ("model=masked_bert", "dataset=smiles", "dataset.root=.", "dataset.files=[chains.csv]")
    task = ("task=masked_language_modelling", "loss=null", "monitor=val/loss")
    first = call(*masked, *task, *SIZE, *OFTEN, "epochs=2", "batch_size=4", "output_dir=first", cwd=here)
    assert first.code == 0, first.err
    (before,) = here.glob("first/*/*")
    data = ("dataset=molecules", "dataset.root=.", "dataset.train=chains.csv", "dataset.targets=[weight]")
    number = ("dataset.target_type=number", "task=regression", "loss=mse", "monitor=val/loss", "model=bert")
    untold = call(*data, *number, *SIZE, "dry_run=true", cwd=here)
    assert untold.code == 0, untold.err
    assert "model.num_classes=1: one output for each number or label, the data has no classes" in untold.out
    outputs = ("model.num_classes=${dataset.outputs}", "model.dropout=0", f"init.from={before}")
    answer = call(*data, *number, *outputs, *SIZE, *OFTEN, "epochs=12", cwd=here)
    assert answer.code == 0, answer.err
    assert re.search(r"loaded \d+ of \d+ tensors", answer.out)
    return answer


@pytest.mark.slow
def test_strings_are_told_in_the_units_of_the_target(weights: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (f"run={weights.run}", "device=cpu", "device.threads=1")
    monkeypatch.setattr("sys.stdin", io.StringIO("CCBr\nCCC\n"))
    told = call(*words, "input=-", "format=json", cwd=weights.cwd, verb="predict")
    answers = {line["input"]: line["value"] for line in map(json.loads, told.out.splitlines())}
    assert answers == {"CCBr": pytest.approx(108, abs=25), "CCC": pytest.approx(42, abs=25)}
    ((_, again),) = bigmodel.load(str(weights.run)).predict(["CCC"])
    assert again["value"] == pytest.approx(answers["CCC"], abs=0.01)
    table = call(*words, "input=CCC", cwd=weights.cwd, verb="predict")
    assert [line.split()[0] for line in table.out.splitlines()] == ["text", "CCC"]
    assert float(table.out.split()[-1]) == pytest.approx(answers["CCC"], abs=0.01)
    wrong = call(*words, "input=CC?", cwd=weights.cwd, verb="predict")
    assert (wrong.code, "'CC?' is not a SMILES string: unexpected '?', character 3" in wrong.err) == (3, True)
