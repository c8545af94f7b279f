"""The examples of docs/contributing.md, written to files as they stand there, are found, trusted and trained with."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bigmodel
from bigmodel import cli
from conftest import slow_where

PAGE = Path(__file__).resolve().parents[1] / "docs" / "contributing.md"
QUICK = ["device=cpu", "epochs=1", "limit_batches=3", "log_every=1steps"]


@pytest.fixture
def examples(tmp_path, monkeypatch):
    blocks = re.findall(r"^`(my_\S+)`\n```\w+\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for name, text in blocks:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield [name for name, _ in blocks]
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]


def trained(monkeypatch, words):
    """The summary of one training run."""
    monkeypatch.setattr(sys, "argv", ["bigmodel-train", *words])
    with pytest.raises(SystemExit) as ended:
        cli.train()
    assert ended.value.code == 0
    output = next((word[11:] for word in words if word.startswith("output_dir=")), "outputs")
    (summary,) = Path(output).glob("*/*/summary.json")
    return json.loads(summary.read_text(encoding="utf-8"))


def test_one_file_and_one_yaml_each(examples):
    assert sorted(examples) == sorted(
        [f"my_parts/{name}.py" for name in ("two_convs", "stripes", "rmsprop", "smooth")]
        + ["my_conf/model/two_convs.yaml", "my_conf/dataset/stripes.yaml", "my_conf/optim/rmsprop.yaml"]
        + ["my_conf/dataset/smooth_stripes.yaml", "my_conf/my_predict.yaml"]
    )


@pytest.mark.parametrize(
    "choice",
    slow_where(
        ["model=two_convs", "dataset=stripes", "optim=rmsprop", "dataset=smooth_stripes"],
        {"optim=rmsprop", "dataset=smooth_stripes"}.__contains__,
    ),
)
def test_each_example_trains_by_itself(examples, monkeypatch, choice):
    summary = trained(monkeypatch, ["--config-dir", "my_conf", "trust=[my_parts]", choice, *QUICK])
    assert summary["state"] == "done"
    assert summary["step"] == 3


def test_the_command_of_the_page_learns(examples, monkeypatch):
    (command,) = re.findall(r"^```sh\n(bigmodel-train .*)\n```", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    summary = trained(monkeypatch, [*shlex.split(command)[1:], "device=cpu"])
    assert summary["test"]["accuracy"] > 0.95


def test_untrusted_examples_are_refused(examples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bigmodel-train", "--config-dir", "my_conf", "model=two_convs"])
    with pytest.raises(SystemExit) as ended:
        cli.train()
    assert ended.value.code == 2
    assert "trust=[my_parts]" in capsys.readouterr().err
    assert not Path("outputs").exists()


def predicted(monkeypatch, capsys, words):
    """The exit code, and what was printed."""
    monkeypatch.setattr(sys, "argv", ["bigmodel-predict", *words])
    with pytest.raises(SystemExit) as ended:
        cli.predict()
    printed = capsys.readouterr()
    return ended.value.code, printed.out + printed.err


@pytest.mark.slow
def test_the_processor_of_the_page_has_an_option_of_its_own(examples, monkeypatch, capsys):
    Image.fromarray(np.repeat([[255], [0]], 12, axis=1).astype(np.uint8).repeat(6, axis=0)).save("stripes.png")
    own = ["--config-dir", "my_conf", "trust=[my_parts]"]
    for choice in ("dataset=smooth_stripes", "dataset=stripes"):
        trained(monkeypatch, [*own, choice, f"output_dir={choice[8:]}", *QUICK])
    (smooth,), (plain,) = Path("smooth_stripes").glob("*/*"), Path("stripes").glob("*/*")
    (command,) = re.findall(r"^```sh\n(bigmodel-predict .*)\n```", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    words = [f"run={smooth}" if word == "run=RUN" else word for word in shlex.split(command)[1:]]
    (typed,) = (word for word in words if word.startswith("smoothing="))
    words.remove(typed)
    capsys.readouterr()
    most = []
    for smoothing in ("null", "4", "-1"):
        code, out = predicted(monkeypatch, capsys, [*words, f"smoothing={smoothing}", "device=cpu", "format=json"])
        if code == 0:
            most.append(json.loads(out)["probability"])
        else:
            assert (code, out) == (2, "error: smoothing: must be a number above 0, not -1\n")
    assert most[0] > most[1] > 0.5
    assert bigmodel.load(smooth, trust=["my_parts"]).predict("stripes.png", smoothing=4.0)[0].answer[
        "probability"
    ] == pytest.approx(most[1])
    words = [f"run={plain}" if word == f"run={smooth}" else word for word in words]
    code, out = predicted(monkeypatch, capsys, [*words, typed, "device=cpu"])
    assert code == 2
    assert "smoothing: this run's ImageClassificationProcessor has no such option; it has top" in out
