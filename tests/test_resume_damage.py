"""Files of a run that no checkpoint holds: what is altered in them is found on resume, refused or told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import TINY, Answer, contents, is_quiet, records, slow_where

SAVED = (*TINY, "save_every=2steps", "evaluate_every=2steps", "log_every=1steps", "keep=9")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import call

    answer = call(*SAVED, cwd=tmp_path_factory.mktemp("whole"))
    assert answer.code == 0, answer.err
    return answer.run


@pytest.fixture
def half(whole: Path, tmp_path: Path) -> Path:
    """A run as a kill leaves it after its save of step 4."""
    copy = tmp_path / "half"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / "checkpoints" / "step-00000006")
    (copy / "checkpoints" / "last.json").write_text('{\n "step": 4\n}')
    (copy / "summary.json").unlink()
    return copy


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def _same(run: Path, whole: Path) -> None:
    assert contents(run) == contents(whole)


def test_what_is_whole_goes_on_without_a_word(cli: Callable[..., Answer], half: Path, whole: Path) -> None:
    answer = cli(f"resume={half}")
    assert (answer.code, answer.err) == (0, "")
    assert "warning" not in answer.out
    _same(half, whole)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("  lr: 0.05\n", "  lr: 0.04\n", "optim.lr is 0.04, and the run was trained with 0.05 up to step 4"),
        ("\nseed: 0\n", "\nseed: 2\n", "seed is 2, and the run was trained with 0"),
        ("\nbatch_size: 64\n", "\nbatch_size: 65\n", "batch_size is 65"),
        ("\nlimit_batches: 3\n", "\nlimit_batches: 1\n", "limit_batches is 1"),
        ("\nepochs: 2\n", "\nepochs: 3\n", "epochs is 3, and the run was trained with 2"),
        ("\nepochs: 2\n", "\nepochs: 0\n", "epochs is 0, and the run was trained with 2"),
        ("\nclip_norm: null\n", "\nclip_norm: 1\n", "clip_norm is 1, and the run was trained with None"),
        (
            "bigmodel.optim.schedules.Cosine",
            "bigmodel.optim.schedules.Linear",
            "schedule._target_ is bigmodel.optim.schedules.Linear",
        ),
        ("momentum: 0.9\n", "momentum: 0.8\n", "optim.momentum is 0.8"),
    ],
    ids=str,
)
def test_a_config_that_is_not_the_runs_is_refused(
    cli: Callable[..., Answer], half: Path, whole: Path, old: str, new: str, key: str
) -> None:
    _edit(half / "config.yaml", old, new)
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    for words in ((), ("dry_run=true",)):
        (line,) = is_quiet(cli(f"resume={half}", *words), code=2)
        assert f"config.yaml: {key}" in line
        assert "set" in line
    assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file()} == before
    _edit(half / "config.yaml", new, old)
    assert cli(f"resume={half}").code == 0
    _same(half, whole)


def test_every_difference_is_told_at_once(cli: Callable[..., Answer], half: Path) -> None:
    _edit(half / "config.yaml", "  lr: 0.05\n", "  lr: 0.04\n")
    _edit(half / "config.yaml", "\nseed: 0\n", "\nseed: 1\n")
    lines = is_quiet(cli(f"resume={half}", "epochs=3"), code=2)
    assert [re.search(r"yaml: (\S+) is", line)[1] for line in lines] == ["optim.lr", "seed"]


def test_what_has_no_influence_may_be_edited_and_is_told(cli: Callable[..., Answer], half: Path) -> None:
    _edit(half / "config.yaml", "\nkeep: 9\n", "\nkeep: 8\n")
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    assert "warning: " in answer.out
    assert "config.yaml: keep was 9, is now 8: the file was edited, or is damaged" in answer.out


def test_a_config_of_an_older_version_has_no_hash_and_is_compared_all_the_same(
    cli: Callable[..., Answer], half: Path, whole: Path
) -> None:
    file = half / "config.yaml"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("#")))
    _edit(file, "  lr: 0.05\n", "  lr: 0.04\n")
    (line,) = is_quiet(cli(f"resume={half}"), code=2)
    assert "optim.lr is 0.04" in line
    _edit(file, "  lr: 0.04\n", "  lr: 0.05\n")
    assert cli(f"resume={half}").code == 0
    _same(half, whole)


def test_a_grown_run_that_is_killed_before_its_next_save_goes_on_to_its_new_end(
    cli: Callable[..., Answer], whole: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for copy in (first, second):
        shutil.copytree(whole, copy)
    assert cli(f"resume={first}", "epochs=3").code == 0
    shutil.copy(first / "config.yaml", second)  # all that the second start has written
    assert cli(f"resume={second}").code == 0
    _same(second, first)


def test_before_the_first_save_nothing_but_the_hash_can_tell(cli: Callable[..., Answer], half: Path) -> None:
    shutil.rmtree(half / "checkpoints")
    _edit(half / "config.yaml", "\nseed: 0\n", "\nseed: 1\n")
    (line,) = is_quiet(cli(f"resume={half}"), code=2)
    assert "config.yaml: is not as the run wrote it, and no checkpoint says what it was" in line
    file = half / "config.yaml"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))  # on purpose, as the line says
    assert cli(f"resume={half}").code == 0


def _line(run: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    file = run / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[number - 1] = change(lines[number - 1])
    file.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("change", "damaged"),
    [
        (lambda line: line.replace(b'"step"', b'"stex"'), True),
        (lambda line: line.replace(b"{", b"[", 1), True),
        (lambda line: b"\xff" + line[1:], True),
        (lambda line: b"\0" * (len(line) - 1) + b"\n", True),
        (lambda line: line.replace(b'"step": 1', b'"step": "1"'), True),
        (lambda line: line.replace(b'"step": 1', b'"step": 9'), False),  # as if it came after what was saved
        (lambda line: b"", False),
    ],
)
def test_a_damaged_line_costs_itself_alone_and_is_told(
    cli: Callable[..., Answer], half: Path, whole: Path, change: Callable[[bytes], bytes], damaged: bool
) -> None:
    _line(half, 1, change)
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    told = "warning: metrics.jsonl: line 1 damaged and left out; all others are kept" in answer.out
    assert told == damaged
    assert "warning: metrics.jsonl: 5 of the 6 lines up to this step are left" in answer.out
    assert "5 of the 6 lines" in (half / "train.log").read_text()
    assert records(half) == records(whole)[1:]
    left, right = (json.loads((run / "summary.json").read_text()) for run in (half, whole))
    assert (left["train"], left["val"], left["test"]) == (right["train"], right["val"], right["test"])
    quiet = cli(f"resume={half}")  # it has been told
    assert "metrics.jsonl" not in quiet.out


def test_a_changed_number_is_told(cli: Callable[..., Answer], half: Path, whole: Path) -> None:
    _line(half, 2, lambda line: line.replace(b'"loss": 2', b'"loss": 6'))
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    assert "warning: metrics.jsonl: some numbers up to this step are not those that were written" in answer.out
    assert (half / "metrics.jsonl").read_text().count('"loss": 6') == 1


def test_a_line_more_is_told(cli: Callable[..., Answer], half: Path) -> None:
    _line(half, 2, lambda line: line + line)
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    assert "warning: metrics.jsonl: holds 1 line up to this step that this run has not written" in answer.out


def test_without_any_metrics_the_summary_is_whole(cli: Callable[..., Answer], whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    (copy / "metrics.jsonl").unlink()
    answer = cli(f"resume={copy}")
    assert answer.code == 0, answer.err
    assert "metrics.jsonl: 0 of the 9 lines up to this step are left; the rest is lost" in answer.out
    assert contents(copy)["summary.json"] == contents(whole)["summary.json"]


def test_a_last_line_without_its_end_is_not_continued(cli: Callable[..., Answer], whole: Path, half: Path) -> None:
    """What the disk has of a line may be all but its end: the next one must not be written behind it."""
    text = (half / "metrics.jsonl").read_text()
    kept = [line for line in text.splitlines() if json.loads(line)["step"] <= 4]
    (half / "metrics.jsonl").write_text("\n".join(kept))
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    assert "metrics.jsonl: 5 of the 6 lines" in answer.out
    lost = len(kept) - 1
    assert records(half) == records(whole)[:lost] + records(whole)[lost + 1 :]


def test_a_checkpoint_of_an_older_version_has_no_account_of_its_records(
    cli: Callable[..., Answer], half: Path, whole: Path
) -> None:
    from bigmodel.runs import checkpoint

    for path in checkpoint.list_checkpoints(half / "checkpoints"):
        found = checkpoint.load(path)
        state = {key: value for key, value in found.state.items() if key != "metrics"}
        checkpoint.save(half / "checkpoints", int(path.name[5:]), found.tensors, state)
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    assert "metrics.jsonl" not in answer.out
    assert contents(half)["summary.json"] == contents(whole)["summary.json"]
    assert records(half) == records(whole)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seconds": "long"}', "null", "\x00"])
def test_a_damaged_summary_is_told_and_made_anew(
    cli: Callable[..., Answer], half: Path, whole: Path, text: str
) -> None:
    (half / "summary.json").write_text(text)
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    assert "summary.json: damaged; its elapsed seconds are lost, the rest is rewritten" in answer.out
    _same(half, whole)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"versions": 3, "dataset": "x", "device": "y"}', None])
def test_a_damaged_environment_is_told_and_written_anew(
    cli: Callable[..., Answer], half: Path, whole: Path, text: str | None
) -> None:
    file = half / "environment.json"
    file.unlink() if text is None else file.write_text(text)
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    state = "missing" if text is None else "damaged"
    assert f"environment.json: {state}; rewritten with the environment of this start" in answer.out
    _same(half, whole)


def test_other_data_another_device_and_another_version_are_told(cli: Callable[..., Answer], half: Path) -> None:
    file = half / "environment.json"
    environment = json.loads(file.read_text())
    environment |= {"dataset": "sha256:0", "device": "cuda:3 (NVIDIA H100)"}
    environment["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(environment))
    answer = cli(f"resume={half}")
    assert answer.code == 0, answer.err
    for text in (
        r"the dataset was sha256:0, is now sha256:\w+: later steps are trained on other data",
        r"the device was cuda:3 \(NVIDIA H100\), is now cpu .*: later steps may differ .* in the last bits",
        r"the version of torch was 1\.0, is now ",
    ):
        assert re.search(f"warning: {text}", answer.out), text
    assert json.loads(file.read_text()) == environment  # where it began


JUMP = r"resume: the learning rate jumps from (\S+) at step 6 to (\S+) at step 7, .* now covers 15 steps, not 6"


@pytest.mark.parametrize(
    "schedule", slow_where(["cosine", "linear", "one_cycle", "step", "constant"], lambda name: name != "cosine")
)
def test_a_longer_schedule_says_how_the_rate_jumps(cli: Callable[..., Answer], schedule: str) -> None:
    run = cli(*TINY, f"schedule={schedule}", "log_every=1steps").run
    plan, answer = cli(f"resume={run}", "epochs=5", "dry_run=true"), cli(f"resume={run}", "epochs=5")
    assert answer.code == 0, answer.err
    rates = {record["step"]: record["lr"] for record in records(run) if record["split"] == "train"}
    if schedule == "constant":
        assert "jumps" not in plan.out + answer.out
        return
    for said in (plan.out, answer.out, (run / "train.log").read_text()):
        found = re.search(JUMP, said)
        assert found, said
        assert [float(text) for text in found.groups()] == pytest.approx([rates[6], rates[7]], rel=5e-3)


def test_a_rate_that_had_ended_and_begins_again_is_told(cli: Callable[..., Answer]) -> None:
    words = ("device=cpu", "model=whitened_cnn", "model.widths=[8]", "limit_batches=4", "epochs=1")
    rates = ("optim=muon_sgd", "optim.early_params=[whiten.bias]", "optim.early_until=0.5")
    answer = cli(*words, *rates)
    assert answer.code == 0, answer.err
    said = cli(f"resume={answer.run}", "epochs=40", "dry_run=true").out
    assert re.search(r"jumps from 0 at step 4 to \S+ at step 5, .* not 4; its parameters had ended training", said)
    assert "jumps" not in cli(f"resume={answer.run}", "dry_run=true").out


def test_a_run_that_had_stopped_early_stays_so_and_says_it(cli: Callable[..., Answer]) -> None:
    words = (*TINY[:-1], "epochs=9", "optim.lr=1e-12", "patience=1", "evaluate_every=2steps", "monitor=val/loss")
    run = cli(*words, "optim.momentum=0", "optim.nesterov=false").run
    assert json.loads((run / "summary.json").read_text())["state"] == "early_stopped"
    assert "had stopped early (patience=1) and stays stopped" in cli(f"resume={run}", "epochs=12").out


def test_another_device_is_told_to_have_other_bits(cli: Callable[..., Answer], half: Path) -> None:
    answer = cli(f"resume={half}", "device.threads=1", "device.channels_last=true", "keep=5")
    assert answer.code == 0, answer.err
    assert (
        "resume: device.channels_last was False, is now True; later steps may differ from those of an unbroken run"
        in answer.out
    )
    assert "resume: keep was 9, is now 5\n" in answer.out


def test_what_a_stopped_run_has_saved_displaces_nothing(tmp_path: Path) -> None:
    from bigmodel.runs import checkpoint
    from test_checkpoint import _tensors

    root, best = tmp_path / "checkpoints", {"step": 10, "value": 1.0, "since": 0}
    left = []
    for step in (10, 20, 30, 35, 37, 40):
        state = {"step": step, "best": best}
        checkpoint.commit(root, step, _tensors(), state, keep=2, passing=step in (35, 37))
        left.append([int(path.name[5:]) for path in checkpoint.list_checkpoints(root)])
    assert left == [[10], [20, 10], [30, 20, 10], [35, 30, 20, 10], [37, 30, 20, 10], [40, 30, 10]]


def test_a_frozen_config_of_a_sweep_that_was_altered_is_refused(whole: Path, tmp_path: Path) -> None:
    from bigmodel.errors import ConfigError
    from bigmodel.sweeps.engines.job_context import JobContext
    from bigmodel.sweeps.engines.job_process import load_job
    from bigmodel.sweeps.state.directory import SweepDirectory
    from bigmodel.sweeps.state.jobs import JobSpec
    from bigmodel.sweeps.state.settings import SweepOptions

    sweep = SweepDirectory(tmp_path)
    text = (whole / "config.yaml").read_text()
    sweep.snapshot_configs([(JobSpec(0, ("seed=0",), "val/accuracy", 2.0), text)], SweepOptions(1, 1, "continue"), ())
    sweep.lock.release()
    context = JobContext(str(tmp_path))
    assert load_job(context, 0)[1].values["seed"] == 0
    _edit(tmp_path / "jobs" / "0.yaml", "\nseed: 0\n", "\nseed: 1\n")
    with pytest.raises(ConfigError, match=r"0\.yaml: is not as the sweep wrote it"):
        load_job(context, 0)


@pytest.mark.parametrize(
    "account", [3, {}, {"train": 1, "val": 2, "records": 3}, {"train": {}, "val": {}, "records": "x"}]
)
def test_an_account_of_records_that_no_version_wrote_costs_a_warning(account: object) -> None:
    from bigmodel.listeners.totals import RunTotals

    (line,) = RunTotals().restore([], account)
    assert "cannot be read" in line
