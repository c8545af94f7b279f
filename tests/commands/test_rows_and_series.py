"""Tables and series through the commands: trained, told of raw rows and windows, in their own units."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, call

LONG = ("optim=adamw", "batch_size=8", "epochs=12", "evaluate_every=12epochs", "save_every=12epochs")
LONG += ("device=cpu", "device.threads=1", "listeners=[]")


def the_lines(folder: Path) -> Path:
    """y is 2x + 7 where the kind is b, and 2x elsewhere."""
    rows = [f"{n % 17},{'ab'[n % 2]},{2 * (n % 17) + 7 * (n % 2)}" for n in range(240)]
    (folder / "lines.csv").write_text("\n".join(["x,kind,y", *rows]) + "\n", encoding="utf-8")
    return folder / "lines.csv"


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    folder = tmp_path_factory.mktemp("regression")
    the_lines(folder)
    data = ("dataset=table", "dataset.root=.", "dataset.train=lines.csv", "dataset.target=y")
    roles = (
        "dataset.target_type=number",
        "dataset.categorical_columns=[kind]",
        "task=regression",
        "loss=mse",
        "monitor=val/loss",
    )
    answer = call(*data, *roles, *LONG, "model=linear", "optim.lr=0.03", cwd=folder)
    assert answer.code == 0, answer.err
    return answer


def test_a_linear_model_finds_a_line(regression: Answer) -> None:
    summary = json.loads((regression.run / "summary.json").read_text())
    assert summary["test"]["r2"] > 0.999
    assert summary["test"]["mae_units"] < 0.1


def test_rows_are_told_in_their_own_units(regression: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    (regression.cwd / "new.csv").write_text("kind,x\nb,3\na,x\na,4\n", encoding="utf-8")  # no y; another order
    words = (f"run={regression.run}", "input=new.csv", "device=cpu", "device.threads=1")
    told = call(*words, "format=json", cwd=regression.cwd, verb="predict")
    answers = {line["input"]: line["value"] for line in map(json.loads, told.out.splitlines())}
    assert answers == {"new.csv:2": pytest.approx(13, abs=0.3), "new.csv:4": pytest.approx(8, abs=0.3)}
    assert (told.code, "new.csv:3: column 'x': 'x' is not a number" in told.err) == (3, True)
    monkeypatch.setattr("sys.stdin", io.StringIO("x,kind\n3,b\n"))
    table = call(f"run={regression.run}", "input=-", "device=cpu", cwd=regression.cwd, verb="predict")
    assert [line.split()[0] for line in table.out.splitlines()] == ["row", "-:2"]
    assert table.err == ""
    trained_on = call(f"run={regression.run}", "input=lines.csv", "device=cpu", cwd=regression.cwd, verb="predict")
    assert trained_on.err == "note: lines.csv: unused columns: y\n"
    assert len(trained_on.out.splitlines()) == 241


def test_a_forecast_goes_on_from_the_window(cli: Callable[..., Answer], tmp_path: Path) -> None:
    rows = [f"{n},{10 * (n % 10)},{5 + n % 5}" for n in range(200)]
    (tmp_path / "load.csv").write_text("\n".join(["step,a,b", *rows]) + "\n", encoding="utf-8")
    data = ("dataset=series", "dataset.root=.", "dataset.file=load.csv", "dataset.time=step", "dataset.season=5")
    shape = ("dataset.window=12", "dataset.horizon=4", "task=forecasting", "loss=mse", "monitor=val/loss")
    model = ("model=dlinear", "model.kernel=5", "model.subtract_last=true", "optim.lr=0.02")
    made = cli(*data, *shape, *LONG, *model, cwd=tmp_path)
    assert made.code == 0, made.err
    test = json.loads((made.run / "summary.json").read_text())["test"]
    assert test["mse"] < 0.1 * test["naive_mse"]
    words = (f"run={made.run}", "device=cpu", "device.threads=1", "format=json")
    told = cli(*words, "input=load.csv", cwd=tmp_path, verb="predict")
    forecast = json.loads(told.out)["forecast"]
    assert forecast["a"] == pytest.approx([0, 10, 20, 30], abs=5.0)
    assert len(forecast["b"]) == 4
    (tmp_path / "short.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    short = cli(*words, "input=short.csv", cwd=tmp_path, verb="predict")
    assert (short.code, "has 1 row; a forecast needs 12" in short.err) == (3, True)
