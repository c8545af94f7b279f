"""Secrets in overrides or the environment: in no file that a run writes, and in no line that it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from bigmodel.commands.exit_codes import print_errors
from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.config.resolvers import reject_resolvers
from bigmodel.config.saved import load_config
from bigmodel.config.validation import check_composed
from bigmodel.errors import ConfigError
from bigmodel.redaction import is_secret_key
from campaign import SEED
from conftest import Answer, fingerprint
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
ROUNDABOUT = (  # by whatever spelling: refused, or a reference that is written out
    "${oc.${monitor}:MY_SECRET}",
    "${oc.select:output_dir}",
    "${oc.decode:${oc.env:MY_SECRET}}",
    "${oc.decode:${output_dir}}",
    "${oc.create:{a: ${oc.env:MY_SECRET}}}",
    "${oc.create:[${output_dir}]}",
    "${oc.env:${oc.env:MY_SECRET}}",
    "${oc.deprecated:output_dir}",
    "${oc.env:NOWHERE,${oc.env:MY_SECRET}}",
    '${oc.env:"MY_SECRET"}',
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
            assert finished(process) == 2, (cwd / "said").read_text()  # whose run it is, nobody can know
            granted = re.findall(r"trust=\[(env:\w+)\]", (cwd / "said").read_text())
            assert set(granted) <= {"env:MY_SECRET", "env:PLAIN_NAME"}
            assert granted
            process = _launch(cwd, f"resume={run}", "epochs=2", "keep=3", f"trust=[token_pkg,{granted[0]}]")
            assert finished(process) == 0, (cwd / "said").read_text()
            assert next(iter(fingerprint(run))).startswith("step-00000004")
            assert "oc.env:" in (run / "config.yaml").read_text()
            _nowhere(cwd)


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    plain = compose("train", ["model=mlp", "monitor=env"], ConfigSource((conf_directory(),), "train"))
    return OmegaConf.create(plain.redacted_dict())


def _with(composed: DictConfig, text: str) -> DictConfig:
    return OmegaConf.merge(composed, {"output_dir": "${oc.env:MY_SECRET}", "data_dir": text})


@pytest.mark.filterwarnings("ignore:'data_dir' is deprecated")
@pytest.mark.parametrize("text", ROUNDABOUT)
def test_a_reference_spelled_in_another_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], composed: DictConfig, text: str
) -> None:
    """In a config of one's own: refused. In one that came with a run: refused before it is resolved."""
    monkeypatch.setenv("MY_SECRET", SECRET)
    config = _with(composed, text)
    problems = check_composed(config, "train")[1]
    print_errors(problems)
    said = capsys.readouterr().err
    assert "error: data_dir: " in said
    assert SECRET not in said
    with pytest.raises(ConfigError, match=r"config.yaml: data_dir: .* calls a resolver"):
        reject_resolvers(Path("config.yaml"), config, ["env:MY_SECRET", "env:NOWHERE"])


@pytest.mark.parametrize("text", ["${output_dir} and more", "${oc.env:MY_SECRET}/x", "\\${oc.env:MY_SECRET}", "a"])
def test_what_is_written_out_is_kept_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, composed: DictConfig, text: str
) -> None:
    monkeypatch.setenv("MY_SECRET", SECRET)
    config, problems = check_composed(_with(composed, text), "train")
    assert problems == []
    written = config.to_yaml()
    assert SECRET not in f"{written}{config.redacted_dict()}{config.to_template_yaml()}{config.to_job_yaml()}"
    file = tmp_path / "config.yaml"
    file.write_text(written)
    with pytest.raises(
        ConfigError, match=r"output_dir: reads MY_SECRET from the environment; .*trust=\[env:MY_SECRET\]"
    ):
        load_config(file)
    again = load_config(file, config.trust_for_resume)
    assert again.values == config.values
    assert again.to_yaml() == written


def test_numbers_are_no_secrets(monkeypatch: pytest.MonkeyPatch, composed: DictConfig) -> None:
    for name, value in {"S": "3", "LR": "5e-2", "P": "true", "E": "null"}.items():
        monkeypatch.setenv(name, value)
    given = {"seed": "${oc.env:S}", "optim": {"lr": "${oc.env:LR}"}, "profile": "${oc.env:P}", "ema": "${oc.env:E}"}
    given |= {"model": {"hidden": ["${oc.env:S}", 4]}, "epochs": "${oc.decode:${oc.env:S}}", "lr_scale": {"*": 1}}
    config, problems = check_composed(OmegaConf.merge(composed, given), "train")
    assert problems == []
    tree = config.values
    assert (tree["seed"], tree["optim"]["lr"], tree["profile"], tree["ema"]) == (3, 0.05, True, None)
    assert (tree["model"]["hidden"], tree["epochs"]) == ((3, 4), 3)
    assert "oc.env" not in config.to_yaml(), "another day's environment would make another run of it"


@pytest.mark.parametrize("text", ["3.0", "010", "1_0", "0x3", " 3", "three", ""])
def test_text_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, composed: DictConfig, text: str) -> None:
    monkeypatch.setenv("S", text)
    (line,) = check_composed(OmegaConf.merge(composed, {"seed": "${oc.env:S}"}), "train")[1]
    assert line.startswith("seed: must be a whole number")


@pytest.mark.parametrize(
    "given",
    [
        {"hydra": {"x": "env"}, "data_dir": "${oc.${hydra.x}:MY_SECRET}"},
        {"data_dir": "${oc.env:MY_SECRET}"},
        {"data_dir": "${${monitor}:x}"},
        {"data_dir": "${attacker:}"},
        {"data_dir": "${now:%Y}"},
        {"model": "${oc.create:{_target_: os.system}}"},
        {"model": {"hidden": ["${oc.env:A${seed}}"]}},
    ],
)
def test_a_run_from_a_stranger_reads_nothing(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, composed: DictConfig, given: dict
) -> None:
    monkeypatch.setenv("MY_SECRET", SECRET)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.merge(composed, given)))
    for words in (["resume=run"], ["--config-path=run", "--config-name=config"], ["--config-dir=run", "-cn", "config"]):
        answer = cli(*words, cwd=tmp_path)
        assert answer.code == 2, answer.err
        assert "config.yaml: " in answer.err
        assert SECRET not in answer.err


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
    assert not is_secret_key(f"model.{name}")
