"""Secrets in overrides or the environment: in no file that a run writes, and in no line that it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.hidden import is_secret
from campaign import SEED
from conftest import fingerprint
from forks import finished, launch

PACKAGE = """
from torch import nn
class Net(nn.Module):
    def __init__(self, api_token: str = "", note: str = "", boast: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.words, self.boast = f"refused: {api_token} {note}", boast
    def forward(self, x):
        if self.boast:
            raise RuntimeError(self.words)
        return self.body(x)
"""
SECRET = "s3cr3t-v4lue"
RUN = ("device=cpu", "device.threads=1", "limit_batches=2", "epochs=1", "schedule=constant", "trust=[token_pkg]")
NET = "+model={{_target_: token_pkg.Net, {}}}"
FROM_THE_ENVIRONMENT = (
    ("api_token: '${oc.env:MY_SECRET}'",),
    ("api_token: '${ oc.env:MY_SECRET}'",),
    ("api_token: '${oc.env: MY_SECRET }'",),
    ("api_token: 'Bearer ${oc.env:MY_SECRET}'",),
    ("api_token: '${oc.env:BIGMODEL_TEST,x}${oc.env:MY_SECRET}'",),
    ("api_token: '${oc.env:MY_SECRET}', note: '${model.api_token}'",),
    ("note: '${oc.env:PLAIN_NAME}'",),
    ("note: x", "data_dir='${oc.env:MY_SECRET}'"),
    ("note: x", "output_dir=out", "data_dir='${oc.env:PLAIN_NAME}/data'"),
)
IN_PLAIN_WORDS = (
    (NET.format(f"api_token: {SECRET}"),),
    (NET.format("note: x"), f"+model.api_token={SECRET}"),
    (NET.format("note: x"), f"+model.api_token=[{SECRET}"),
    (NET.format("note: x"), f"+model.password={SECRET}"),
    (NET.format("note: x"), "epochs='${oc.env:MY_SECRET}'"),
    (NET.format("note: x"), "loss='${oc.env:MY_SECRET}'"),
)


def _launch(cwd: Path, *words: str):
    cwd.mkdir(exist_ok=True)
    (cwd / "token_pkg.py").write_text(PACKAGE)
    secrets = {"MY_SECRET": SECRET, "PLAIN_NAME": SECRET, "BIGMODEL_TEST": "own"}
    return launch(*words, cwd=cwd, output=cwd / "said", environment=secrets)


def _nowhere(cwd: Path) -> None:
    """Neither in a file's contents, names included, nor in what was said."""
    files = [path for path in cwd.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes() or SECRET in str(path)] == []


def test_a_reference_to_the_environment(campaign: Callable, tmp_path: Path) -> None:
    fault = "a secret from the environment in a config, resumed with changes"
    total = len(FROM_THE_ENVIRONMENT)
    for trial in campaign(fault, key="SECRETS", quick=1, full=2 * total):
        with trial:
            cwd = tmp_path / str(trial.number)
            net, *words = FROM_THE_ENVIRONMENT[(trial.number + SEED) % total]
            process = _launch(cwd, *RUN, "~model", NET.format(net), *words)
            assert finished(process) == 0, (cwd / "said").read_text()
            (run,) = cwd.glob("out*/*/*")
            assert "oc.env:" in (run / "config.yaml").read_text()
            _nowhere(cwd)
            process = _launch(cwd, f"resume={run}", "epochs=2", "keep=3", "trust=[token_pkg]")
            assert finished(process) == 0, (cwd / "said").read_text()
            assert next(iter(fingerprint(run))).startswith("step-00000004")
            assert "oc.env:" in (run / "config.yaml").read_text()
            _nowhere(cwd)


def test_a_change_of_a_reference_is_not_told(campaign: Callable, tmp_path: Path) -> None:
    for trial in campaign("a secret among the keys that a resume changes", key="SECRETS_CHANGED", quick=1, full=4):
        with trial:
            cwd = tmp_path / str(trial.number)
            assert finished(_launch(cwd, *RUN, "model=mlp")) == 0
            (run,) = cwd.glob("outputs/*/*")
            accepted = trial.number % 2 == 0
            word = "data_dir='${oc.env:MY_SECRET}'" if accepted else "monitor='${oc.env:MY_SECRET}'"
            code = finished(_launch(cwd, f"resume={run}", word, "epochs=2"))
            assert code == (0 if accepted else 2), (cwd / "said").read_text()
            _nowhere(cwd)


def test_a_secret_in_plain_words(campaign: Callable, tmp_path: Path) -> None:
    fault = "a secret in plain words, or where it does not fit"
    for trial in campaign(fault, key="SECRETS_PLAIN", quick=1, full=2 * len(IN_PLAIN_WORDS)):
        with trial:
            cwd = tmp_path / str(trial.number)
            words = IN_PLAIN_WORDS[(trial.number + SEED) % len(IN_PLAIN_WORDS)]
            code, said = finished(_launch(cwd, *RUN, "~model", *words)), (cwd / "said").read_text()
            assert code == 2, said
            assert all(line.startswith("error: ") for line in said.splitlines()), said
            _nowhere(cwd)
            assert not (cwd / "outputs").exists()


def test_a_failure_that_quotes_a_secret(campaign: Callable, tmp_path: Path) -> None:
    for trial in campaign("an error of foreign code that quotes a secret", key="SECRETS_QUOTED", quick=1, full=4):
        with trial:
            cwd = tmp_path / str(trial.number)
            reference = ("MY_SECRET", "PLAIN_NAME")[trial.number % 2]
            own = NET.format(f"note: '${{oc.env:{reference}}}', boast: true")
            process = _launch(cwd, *RUN, "~model", own)
            assert finished(process) == 1
            (run,) = cwd.glob("outputs/*/*")
            assert "Traceback" in (run / "train.log").read_text()
            told = json.loads((run / "summary.json").read_text())["error"]
            assert told.startswith("refused: "), told
            (cwd / "said").unlink() if reference == "PLAIN_NAME" else None  # that line cannot know what is secret
            _nowhere(cwd)


@pytest.mark.parametrize("name", ["pad_token", "max_tokens", "tokenizer", "secretary", "key", "monkey"])
def test_names_that_only_sound_so(name: str) -> None:
    assert not is_secret(f"model.{name}")
