"""Runs, checkpoints, configs and weights from a stranger: none of their code runs, and each is refused at once."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forks
import watch
from campaign import SEED
from conftest import TINY, call
from hostile import (
    STEP,
    Case,
    Change,
    attacker_module,
    checkpoint_file,
    config_bytes,
    config_text,
    in_config,
    in_state,
    laughs,
    manifest,
    pickled,
    safetensors,
    symlinked,
    together,
    torch_legacy,
    torch_zip,
    weights,
    zip_bomb,
)

SECONDS = 1.0 if os.environ.get("BIGMODEL_FAULTS") == "full" else 3.0  # of its own; busy cores double it
MEMORY = 400 << 20  # beyond what the imports took
ROOM = 6 << 30  # of addresses: what blows up is stopped here, before the machine suffers

TARGETS: dict[str, dict[str, Any]] = {
    "os.system": {"_target_": "os.system", "command": "touch {marker}"},
    "eval": {"_target_": "builtins.eval", "source": "open('{marker}', 'w')"},
    "exec": {"_target_": "builtins.exec", "source": "open('{marker}', 'w')"},
    "torch.hub": {"_target_": "torch.hub.load", "repo_or_dir": "attacker/evil", "model": "x", "trust_repo": True},
    "write_text": {"_target_": "pathlib.Path.write_text", "self": "{marker}", "data": "x"},
    "copytree": {"_target_": "shutil.copytree", "src": "/etc/apt", "dst": "{marker}"},
    "torch.load": {"_target_": "torch.load", "f": "{marker}.pt", "weights_only": False},
    "numpy.load": {"_target_": "numpy.load", "file": "{marker}.npy", "allow_pickle": True},
    "attacker": {"_target_": "attacker.Model"},
    "attacker in our name": {"_target_": "bigmodel.models.attacker.Model"},
    "re-exported module": {
        "_target_": "bigmodel.models.weights.foreign_weights.subprocess.run",
        "args": "touch {marker}",
    },
    "re-exported class": {"_target_": "bigmodel.models.weights.foreign_weights.Path"},
    "re-exported function": {"_target_": "bigmodel.models.torchvision_model.load_weights", "model": 1, "file": "x.pt"},
    "private unpickler": {"_target_": "bigmodel.models.weights.foreign_weights._read_pickle", "path": "{marker}.pt"},
    "unpickler module": {"_target_": "bigmodel.models.weights.unpickle.main"},
    "partial": {"_target_": "functools.partial", "func": {"_target_": "os.system"}},
    "hydra": {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "command": "touch {marker}"}},
    "dotted dots": {"_target_": "..os.system", "command": "touch {marker}"},
    "dunder": {"_target_": "bigmodel.models.mlp.__builtins__.eval", "source": "1"},
    "a list": {"_target_": ["os.system"], "command": "touch {marker}"},
    "a download": {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"},
}
ENDLESS = "processes without end"  # not refused: it gets as many as the machine has cores
TORCHVISION = ("a download", "re-exported function")  # whose import takes seconds by itself
NESTED: dict[str, Any] = {
    "nested target": {"_target_": "os.system", "command": "touch {marker}"},
    "nested in a list": [{"_target_": "os.system", "command": "touch {marker}"}],
    "nested writer": {"_target_": "bigmodel.listeners.csv_file.CsvFile", "directory": "{marker}"},
    "nested writer of logs": {"_target_": "bigmodel.listeners.log_file.LogFile", "directory": "{marker}"},
    "nested data set": {"_target_": "bigmodel.datasets.images.image_folder.image_folder", "root": "/"},
}
STATES: dict[str, tuple[str, Any]] = {
    "interpolated secret": ("config.model.hidden", "${oc.env:HOME}"),
    "more weights than memory": ("config.model.hidden", [200_000, 200_000]),
    "more layers than memory": ("config.model.hidden", [1] * 50_000),
    "an absurd input": ("input_shape", [1, 10**7, 10**7]),
    "another input": ("input_shape", [3, 8, 8]),
    "no numbers in mean": ("mean", ["a"]),
    "mean of nothing": ("mean", []),
    "mean beyond numbers": ("mean", [2**70]),
    "layers beyond sizes": ("config.model.hidden", [2**63]),
    "a model without a target": ("config.model", {"hidden": [3]}),
    "deviation of zero": ("std", [0.0]),
    "no classes": ("classes", []),
    "fewer classes than outputs": ("classes", ["a", "b"]),
    "classes that are no list": ("classes", 5),
    "model that is no node": ("config.model", "os.system"),
    "config that is no config": ("config", [1, 2]),
    "kind from outside": ("kind", "attacker.Model"),
    "kind that is no text": ("kind", ["os.system"]),
    "kind of other data": ("kind", "bigmodel.inference.processors.continuation.TextGenerationProcessor"),
}
EVALUATED: dict[str, tuple[str, Any]] = {
    "workers that are no number": ("config.workers", "many"),
    "no seed": ("config.seed", None),
    "negative workers": ("config.workers", -3),
    "room that is no number": ("config.resident_gb", float("nan")),
    "a task without a target": ("config.task", {}),
    "task from outside": ("config.task._target_", "os.system"),
    "data from outside": ("config.dataset", {"_target_": "numpy.load", "file": "{marker}.npy", "allow_pickle": True}),
    "augmentation from outside": ("config.dataset.augment", {"_target_": "attacker.Model"}),
}
HEADERS: dict[str, bytes] = {
    "header of 2**62 bytes": safetensors(b"{}", length=2**62),
    "header beyond the file": safetensors(b"{}", length=10**8 - 1),
    "negative header": safetensors(b"{}", length=2**64 - 1),
    "header that is no JSON": safetensors(b"\x80\x04evil"),
    "deep header": safetensors(b'{"a":' * 50_000),
    "overlapping offsets": safetensors(
        {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in ("a", "b")}, bytes(8)
    ),
    "huge shape": safetensors({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 8]}}, bytes(8)),
    "offsets outside": safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(8)),
    "unknown type": safetensors({"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "pickle": b"cos\nsystem\n(S'touch /tmp/never'\ntR.",
}
TAGS = {
    "apply tag": "evil: !!python/object/apply:os.system ['touch {marker}']",
    "new tag": "evil: !!python/object/new:os.system ['touch {marker}']",
    "module tag": "evil: !!python/module:attacker",
    "name tag": "evil: !!python/name:os.system",
    "trust in YAML": "trust: [os, attacker, builtins]",
    "custom resolver": "seed_again: ${{attacker:x}}",
    "hydra resolver": "seed_again: ${{hydra:runtime.cwd}}",
}
RESUMED: dict[str, tuple[str, Any]] = {
    "best that is a list": ("best", [1, 2]),
    "best without a step": ("best", {"value": 1.0}),
    "tally of text": ("tally", ["os", "system"]),
    "tally that is a number": ("tally", 5),
    "step that is text": ("step", "os.system"),
    "step without end": ("step", float("inf")),
    "negative step": ("step", -6),
    "step of another": ("step", 5),
    "step that is true": ("step", True),
    "negative steps": ("steps", -1),
    "best that is no number": ("best", {"value": float("nan"), "step": 3, "since": 0}),
    "tally that is no number": ("tally", [float("nan"), 1, 1]),
}
ENTRY = {"size": 5, "sha256": "0"}
READERS = ("evaluate", "predict", "export")


def _reading(verb: str) -> tuple[str, ...]:
    device = () if verb == "export" else ("device=cpu", "device.threads=1")
    more = {"evaluate": (), "predict": ("input={run}/../image.pgm",), "export": ("format=safetensors",)}
    return ("run={run}", *more[verb], *device)


def _cases() -> list[Case]:
    cases: list[Case] = []

    def read(name: str, change: Change, codes: tuple[int, ...], verb: str = "") -> None:
        verb = verb or READERS[len(cases) % len(READERS)]
        cases.append(Case(name, change, verb, _reading(verb), codes))

    def resumed(name: str, change: Change, codes: tuple[int, ...]) -> None:
        cases.append(Case(name, change, "train", ("resume={run}",), codes))

    for name, node in TARGETS.items():
        read(name, in_state("config.model", node), (2,))
        key = ("model", "optim", "loss", "listeners.evil", "schedule")[len(cases) % 5]
        resumed(f"{name} in config.yaml", in_config(key, node), (2,))
    for name, node in NESTED.items():
        read(name, in_state("config.model.hidden", node), (2,))
        resumed(f"{name} in config.yaml", in_config("model.hidden", node), (2,))
    for name, (key, value) in STATES.items():
        read(name, in_state(key, value), (2, 5), "predict" if key in ("input_shape", "mean", "std", "classes") else "")
    for name, (key, value) in EVALUATED.items():
        read(name, in_state(key, value), (2, 5), "evaluate")
    for name, (key, value) in RESUMED.items():  # no run wrote this: the checkpoint before it is taken, with a warning
        resumed(name, in_state(key, value), (0,))
        read(f"{name}, read", in_state(key, value), (0,))
    read(ENDLESS, together(in_state("config.workers", 10**6), in_state("config.resident_gb", 0)), (0,), "evaluate")
    resumed("best in the future", in_state("best", {"value": 0.5, "step": 99, "since": 0}), (2,))
    for number, (name, content) in enumerate(HEADERS.items()):
        file = ("model.safetensors", "optimizer.safetensors")[number % 2]
        # the one before it is whole, and is taken with a warning
        resumed(name, checkpoint_file(file, content), (0,))
    deep = b"[" * 200_000
    for verb in ("resume", "read"):
        add = resumed if verb == "resume" else functools.partial(read, verb="predict")
        add("state.json nested deep", checkpoint_file("state.json", deep), (0,))
        add("MANIFEST.json nested deep", checkpoint_file("MANIFEST.json", deep, sealed=False), (0,))
        add("infinite size", manifest(lambda m, _: m["files"]["state.json"].update(size=float("inf"))), (0,))
        add("pickle as state.json", checkpoint_file("state.json", pickled), (0,))
        add("traversal", manifest(lambda m, _: m["files"].update({"../../../canary": ENTRY})), (0,))
        add("absolute", manifest(lambda m, _: m["files"].update({"/etc/passwd": ENTRY})), (0,))
        add("a link for a file", symlinked("model.safetensors"), (0,))
        add("a manifest of nothing", manifest(lambda m, _: m["files"].clear()), (0,))
    for name, text in TAGS.items():
        resumed(name, config_text(text.replace("{{", "{").replace("}}", "}")), (2,))
    resumed("a billion laughs", config_bytes(laughs().encode()), (2,))
    resumed("config.yaml nested deep", config_bytes(b"[" * 100_000), (2,))
    resumed("blocks nested deep", config_bytes(b"\n".join(b" " * n + b"a:" for n in range(1500))), (2,))
    resumed("a pickle as config.yaml", config_bytes(b"\x80\x04\x95evil\x00"), (2,))
    resumed("a config of 20 MB", config_bytes(b"a: 1\n" * 4_000_000), (2,))
    resumed("more weights than memory in config.yaml", in_config("model.hidden", [20_000_000_000]), (2,))
    composed = ("--config-path={run}", "--config-name=config")
    for name, text in {"a billion laughs": laughs(), **TAGS}.items():
        text = text.replace("{{", "{").replace("}}", "}")
        cases.append(Case(f"{name}, composed", config_text(text), "train", composed, (2,)))
    for name, content in {
        "pickle.safetensors": pickled,
        "pickle.pt": pickled,
        "archive.pth": torch_zip,
        "legacy.th": torch_legacy,
        "bomb.pt": zip_bomb,
        "header.safetensors": lambda _: HEADERS["header of 2**62 bytes"],
        "garbage.pt": lambda _: b"\x00" * 1000,
    }.items():
        words = (*TINY[:1], "model=torchvision", "model.name=shufflenet_v2_x0_5", "dataset.input_shape=[1,8,8]")
        cases.append(Case(name, weights(name, content), "train", (*words, f"model.pretrained={{run}}/../{name}"), (2,)))
    return cases


CASES = _cases()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answer = call(*TINY, "device.threads=1", cwd=tmp_path_factory.mktemp("sound"))
    assert answer.code == 0, answer.err
    best = answer.run / "checkpoints" / "best.json"  # the newest is the one that is altered, and the one that is read
    value = json.loads((answer.run / "checkpoints" / STEP / "state.json").read_text())["best"]
    assert value["step"] == 6, value
    best.write_text(json.dumps({"step": 6, "value": value["value"]}))
    return answer.run


def _meet(case: Case, sound: Path, place: Path) -> None:
    """Run the command on the altered copy; judge its code, its words, its time, its memory and all that it did."""
    run, marker = place / "run", place / "marker"
    shutil.copytree(sound, run)
    (place / "image.pgm").write_bytes(b"P5 8 8 255 " + bytes(64))
    (place / "attacker.py").write_text(attacker_module(marker))
    (place / "canary").write_text("alive")
    case.change(run, marker)
    before = {path.name for path in place.iterdir()}
    output, report = place.with_suffix(".out"), place.with_suffix(".report")
    words = [word.replace("{run}", str(run)) for word in case.words]
    may_write = (run, output) if case.words[0] == "resume={run}" or case.verb == "export" else (output,)
    imports = ("torchvision",) if case.name in TORCHVISION or case.words[0] == TINY[0] else ()
    begin = functools.partial(watch.begin, report, place, may_write, ROOM, imports)
    code = forks.finished(forks.launch(*words, cwd=place, output=output, verb=case.verb, before=begin))
    said = output.read_text(encoding="utf-8", errors="backslashreplace")
    *violations, last = report.read_text(encoding="utf-8").splitlines()
    assert not violations, violations
    assert not marker.exists(), "its code was run"
    made = {path.name for path in place.iterdir()} - before
    assert not made, f"made beside the run: {made}"
    assert code in case.codes, said
    assert "Traceback" not in said
    if code:
        errors = said.splitlines()
        assert len(errors) == 1 or case.codes == (2,), said
        assert all(line.startswith("error: ") and line.isprintable() and len(line) < 1000 for line in errors), said
    elif case.name != ENDLESS:
        assert "warning: " in said, said
        assert STEP in said or "/etc/passwd" in said, said
    cost = json.loads(last)
    assert cost["grown"] < MEMORY, cost
    if code:
        built = case.words[0] == TINY[0]  # a network, into which the weights were to go
        assert cost["seconds"] < (2 * SECONDS if built else SECONDS), cost
        assert not (place / "outputs").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_hostile_files(campaign: Callable[..., Any], sound: Path, tmp_path: Path) -> None:
    trials = campaign(
        "a hostile run, checkpoint, config or weights file: pickles, bombs, absurd headers, foreign targets",
        key="HOSTILE",
        quick=5,
        full=len(CASES),
    )
    order = random.Random(SEED).sample(range(len(CASES)), len(CASES))  # a full count meets each of them
    for trial in trials:
        case = CASES[order[trial.number % len(CASES)]]
        with trial:
            place = tmp_path / f"{trial.number}"
            place.mkdir()
            try:
                _meet(case, sound, place)
            except AssertionError as error:
                raise AssertionError(f"{case.name}, {case.verb}: {error}") from error
            shutil.rmtree(place)


def test_there_are_sixty_of_them() -> None:
    assert len({(case.name, case.verb) for case in CASES}) == len(CASES) >= 60


def test_the_watch_sees_what_it_is_for(sound: Path, tmp_path: Path) -> None:
    """The same foreign target, trusted on the command line, does run, and every look at it bites."""
    place = tmp_path / "trusted"
    place.mkdir()
    (place / "attacker.py").write_text(attacker_module(place / "marker"))
    report, output = tmp_path / "report", tmp_path / "output"
    words = ("~model", "+model={_target_: attacker.Model}", "trust=[attacker]", "device=cpu", "dry_run=true")
    begin = functools.partial(watch.begin, report, place, (output,), ROOM)
    forks.finished(forks.launch(*words, cwd=place, output=output, before=begin))
    assert (place / "marker").exists()
    seen = {line.split(" ", 1)[0] for line in report.read_text().splitlines()[:-1]}
    assert {"compile", "exec", "open"} <= seen
