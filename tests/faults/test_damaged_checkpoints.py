"""A damaged checkpoint is never loaded as if it were whole: the file is named, and the one before it is taken."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint import Checkpoint
from conftest import TINY, Answer, call, fingerprint, records

OLD, NEW, END = "step-00000003", "step-00000006", "step-00000009"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json")
POINTERS = ("best.json", "last.json")
ONE_IN = 20  # trials that go through whole commands as well


class Run:
    """A run that was stopped at step 6, the same run unbroken to step 9, and what each checkpoint holds."""

    def __init__(self, place: Path) -> None:
        answer = call(*TINY, "device.threads=1", "epochs=3", "keep=9", "log_every=1steps", cwd=place)
        assert answer.code == 0, answer.err
        self.unbroken = answer.run
        self.stopped = place / "stopped"
        shutil.copytree(self.unbroken, self.stopped)
        (self.stopped / "summary.json").unlink()
        root = self.stopped / "checkpoints"
        shutil.rmtree(root / END)
        self.whole = {name: checkpoint.load(root / name) for name in (OLD, NEW)}
        best = {"step": 6, "value": self.whole[NEW].state["best"]["value"]}
        assert self.whole[NEW].state["best"]["step"] == 6, "the newest must be the best, for `evaluate` to open it"
        for name, value in (("last.json", {"step": 6}), ("best.json", best)):
            (root / name).write_text(json.dumps(value, indent=1))
        self.reports = {
            name: _report(call(*_evaluation(root / name), cwd=place, verb="evaluate")) for name in (OLD, NEW)
        }


def _evaluation(run: Path) -> tuple[str, ...]:
    return (f"run={run}", "split=val", "format=json", "device=cpu", "device.threads=1")


def _report(answer: Answer) -> dict[str, Any]:
    assert answer.code == 0, answer.err
    report: dict[str, Any] = json.loads(answer.out)
    return {key: value for key, value in report.items() if key != "run"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("damage"))


def _flip(file: Path, root: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def _wrong_byte(file: Path, root: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    place = chance.randrange(len(content))
    content[place] = chance.choice([byte for byte in b'0123456789ab"{}[]:, \n' if byte != content[place]])
    file.write_bytes(content)


def _truncate(file: Path, root: Path, chance: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(1, len(content))])


def _zero(file: Path, root: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    first = chance.randrange(len(content))
    length = chance.randrange(1, len(content) - first + 1)
    content[first : first + length] = bytes(length)
    file.write_bytes(content)


def _missing(file: Path, root: Path, chance: random.Random) -> None:
    file.unlink()


def _empty(file: Path, root: Path, chance: random.Random) -> None:
    file.write_bytes(b"")


def _longer(file: Path, root: Path, chance: random.Random) -> None:
    with file.open("ab") as end:
        end.write(chance.randbytes(chance.randrange(1, 100)))


def _of_another_step(file: Path, root: Path, chance: random.Random) -> None:
    shutil.copy(root / OLD / file.name, file)


def _another_file(file: Path, root: Path, chance: random.Random) -> None:
    shutil.copy(file.with_name(chance.choice([name for name in FILES if name != file.name])), file)


def _a_folder(file: Path, root: Path, chance: random.Random) -> None:
    file.unlink()
    file.mkdir()


INNER: tuple[Callable[[Path, Path, random.Random], None], ...] = (
    _flip,
    _wrong_byte,
    _truncate,
    _zero,
    _missing,
    _empty,
    _longer,
    _of_another_step,
    _another_file,
    _a_folder,
)
OUTER = INNER[:7]  # a pointer has no counterpart to be swapped with


def _damages() -> Iterator[tuple[str, Callable[[Path, Path, random.Random], None]]]:
    """Each file with each damage in turn, so that few trials already differ; the draws within them are random."""
    for damage in INNER:
        yield from ((f"{NEW}/{name}", damage) for name in FILES)
    for damage in OUTER:
        yield from ((name, damage) for name in POINTERS)
    yield from ((f"{OLD}/{name}", _flip) for name in FILES)


DAMAGES = tuple(_damages())


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    """Bit for bit, as bytes: NaN equals itself."""
    return one.state == other.state and {
        (file, name): (tensor.dtype, tensor.shape, tensor.contiguous().numpy().tobytes())
        for file, group in one.tensors.items()
        for name, tensor in group.items()
    } == {
        (file, name): (tensor.dtype, tensor.shape, tensor.contiguous().numpy().tobytes())
        for file, group in other.tensors.items()
        for name, tensor in group.items()
    }


def _check(run: Run, root: Path, file: Path) -> str:
    """Which checkpoint is loaded; it must be what was saved, and whatever is passed over must be named."""
    found, passed_over = checkpoint.load_newest(root)
    assert found is not None, passed_over
    assert _same(found, run.whole[found.path.name]), f"{file}: what was loaded is not what was saved"
    if found.path.name == NEW:
        assert passed_over == []
    else:
        (line,) = passed_over
        named = file.parent if file.name == "MANIFEST.json" else file  # a wrong hash may be the hash's or the file's
        assert str(named) in line, line
        assert "falling back" in line
    return found.path.name


def _check_commands(run: Run, copy: Path, used: str, pointer: bool, cwd: Path) -> None:
    """`resume` ends bitwise where the unbroken run did; `evaluate` says what it passed over and reports no other."""
    evaluated = call(*_evaluation(copy), cwd=cwd, verb="evaluate")
    report = _report(evaluated)
    assert report in run.reports.values()
    if report["step"] != 6 or used != NEW:
        assert "warning: " in evaluated.err
    if pointer:
        assert report["step"] == 6 or evaluated.err, "another checkpoint without a word"
    resumed = call(f"resume={copy}", cwd=cwd)
    assert resumed.code == 0, resumed.err
    assert fingerprint(copy) == fingerprint(run.unbroken)
    assert records(copy) == records(run.unbroken)
    log = (copy / "train.log").read_text(encoding="utf-8")
    assert ("falling back" in log) == (used != NEW)


@pytest.mark.timeout(3600)
def test_damaged_checkpoints(campaign: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    trials = campaign(
        "a checkpoint with a flipped bit, a wrong byte, cut, zeroed, emptied, missing or swapped files",
        key="DAMAGE",
        quick=40,
        full=1000,
    )
    for trial in trials:
        with trial:
            where, damage = DAMAGES[trial.random.randrange(len(DAMAGES))]
            copy = tmp_path / str(trial.number)
            shutil.copytree(run.stopped, copy)
            root = copy / "checkpoints"
            damage(root / where, root, trial.random)
            used = _check(run, root, root / where)
            if where.startswith(OLD) or where in POINTERS:
                assert used == NEW, "an undamaged checkpoint was passed over"
            elif "MANIFEST" not in where and (root / where).is_file():
                same = (root / where).read_bytes() == (run.stopped / "checkpoints" / where).read_bytes()
                assert (used == NEW) == same, f"{where} is not what was written, and was taken"
            if trial.number % ONE_IN == 0:
                _check_commands(run, copy, used, where in POINTERS, tmp_path)
            shutil.rmtree(copy)


def test_a_damaged_pointer_never_names_another_checkpoint_silently(
    campaign: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    """best.json, damaged so that it names a step that is there and was not the best."""
    for trial in campaign("best.json names another step than the best", key="POINTERS", quick=1, full=10):
        with trial:
            copy = tmp_path / str(trial.number)
            shutil.copytree(run.stopped, copy)
            pointer = copy / "checkpoints" / "best.json"
            pointer.write_text(pointer.read_text().replace('"step": 6', '"step": 3'))
            answer = call(*_evaluation(copy), cwd=tmp_path, verb="evaluate")
            report = _report(answer)
            assert "best.json" in answer.err
            assert report == run.reports[NEW]


def test_swapped_steps(campaign: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    """Two whole checkpoints under each other's name: each is what was saved, but not of the step it claims to be."""
    for trial in campaign("two checkpoints under each other's name", key="SWAPS", quick=1, full=10):
        with trial:
            copy = tmp_path / str(trial.number)
            shutil.copytree(run.stopped, copy)
            root = copy / "checkpoints"
            (root / OLD).rename(root / "aside")
            (root / NEW).rename(root / OLD)
            (root / "aside").rename(root / NEW)
            found, passed_over = checkpoint.load_newest(root)
            taken = found and (found.path.name, found.state["step"])
            assert taken is None, "taken for what its name says"
            assert len(passed_over) == 2
            answer = call(f"resume={copy}", cwd=tmp_path)
            assert answer.code == 5
            assert all("error: " in line and "step" in line for line in answer.err.splitlines())


def test_nothing_left_to_fall_back_to(campaign: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    """Every checkpoint damaged: nothing is trained, each is named, and the files stay as they are for rescue."""
    for trial in campaign("every checkpoint is damaged", key="ALL_DAMAGED", quick=1, full=20):
        with trial:
            copy = tmp_path / str(trial.number)
            shutil.copytree(run.stopped, copy)
            root = copy / "checkpoints"
            for name in (OLD, NEW):
                _flip(root / name / trial.random.choice(FILES[:3]), root, trial.random)
            before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file() and path.name != ".lock"}
            for verb, words in (("train", (f"resume={copy}",)), ("evaluate", _evaluation(copy))):
                answer = call(*words, cwd=tmp_path, verb=verb)
                assert answer.code == 5, answer.err
                assert NEW in answer.err
                assert OLD in answer.err
                assert "Traceback" not in answer.err
            after = {path: path.read_bytes() for path in before if path.exists()}
            assert after == before
