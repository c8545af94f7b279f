"""`bigmodel-report`: pages hold what a run did, load and run nothing, and show a stranger's texts as texts."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from test_damaged_runs import FILES, TEXTS, VALUES

from bigmodel.errors import Interrupted
from bigmodel.quoting import path_override
from bigmodel.runs.report import build, files
from bigmodel.runs.report.charts import tick_label
from bigmodel.runtime.signals import StopRequest
from conftest import TINY, Answer, is_quiet, only_run
from made_runs import made_run, made_sweep
from test_contract import FAMILIES, Family

pytest.importorskip("matplotlib", reason="pages need it: pip install 'bigmodel-train[plots]'")
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "h1", "h2", "h3", "p", "a"),
    *("dl", "dt", "dd", "div", "span", "i", "b", "ul", "li", "hr", "figure", "figcaption", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "img", "audio", "blockquote", "mark", "ins", "del"),
    *("svg", "g", "path", "use", "defs", "clippath", "rect", "text", "tspan"),
}
EVIL = "<script>alert(1)</script>"
SEVERAL = "</td><img src=x onerror=alert(1)>\"' onclick=alert(1) "


class Page(HTMLParser):
    """The tags, the texts and the addresses of a page; refuses what could run or load anything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.kinds: list[str] = []
        self.feed(text)
        self.text = " ".join(self.texts)
        assert len(self.ids) == len(set(self.ids))
        assert "Content-Security-Policy" in text
        assert "default-src 'none'" in text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        self.kinds.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src"):
                assert re.match(r"#|data:(image|audio)/", value or ""), (tag, name, value)
            if name == "id":
                self.ids.append(value or "")
            if name == "style":
                assert "url(" not in (value or "").replace("url(#", "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.lasttag == "h2" and data.strip():
            self.headings.append(data)
        if self.lasttag == "style":
            assert "url(" not in data
            assert "@import" not in data


@pytest.fixture(autouse=True)
def _pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end with a page, as for a user who has matplotlib."""
    monkeypatch.setattr(files, "can_draw", lambda: find_spec("matplotlib") is not None)


def page_of(cli: Callable[..., Answer], cwd: Path, *words: str) -> Page:
    answer = cli(*words, "output=page.html", cwd=cwd, verb="report")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("page.html (")
    return Page((cwd / "page.html").read_text(encoding="utf-8"))


def test_a_finished_run_has_a_page(tiny_run: Answer, cli: Callable[..., Answer], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run, run)
    answer = cli("run=run", "device=cpu", cwd=tmp_path, verb="report")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("run/report.html (")
    assert answer.err == ""
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    expected = ["Curves", "Confusion matrix", "Classes", "Most confident mistakes", "Calibration"]
    expected = [*expected, "Where the time went", "Evaluations", "Config", "Environment"]
    assert page.headings == expected
    summary = json.loads((run / "summary.json").read_text())
    assert f"test accuracy {summary['test']['accuracy']:.2%}" in page.text
    assert f"best val/accuracy {summary['best']['value']:.2%} at step {summary['best']['step']}" in page.text
    assert "mlp on digits" in page.text
    assert "img" in page.kinds
    assert page.kinds.count("svg") >= 6


def test_a_strangers_texts_are_texts(cli: Callable[..., Answer], tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", evil={EVIL: SEVERAL}, model="mlp")
    summary = json.loads((run / "summary.json").read_text())
    classes = {"classes": [EVIL, SEVERAL], "test": {"accuracy": 0.5, EVIL: 1.0, "confusion": [[3, 1], [2, 4]]}}
    (run / "summary.json").write_text(json.dumps(summary | classes | {"state": "failed", "error": EVIL + "\x1b[31m"}))
    environment = {"command": [EVIL, SEVERAL], "git": {EVIL: SEVERAL}, "versions": {SEVERAL: EVIL}}
    (run / "environment.json").write_text(json.dumps(environment))
    event = {"step": 1, "epoch": 1.0, "split": "val", EVIL: 0.5, SEVERAL: 0.25, "best": True}
    (run / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    page = page_of(cli, tmp_path, "run=run", "predictions=false")
    assert page.text.count(EVIL) >= 6
    assert SEVERAL.strip() in page.text
    both = page_of(cli, tmp_path, f"run=[{run},{made_run(tmp_path / 'b', evil={EVIL: 1})}]")
    assert EVIL in both.text


def test_many_classes_are_a_picture(cli: Callable[..., Answer], tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary["test"]["confusion"] = [[9 if i == j else int(j == i + 1) for j in range(77)] for i in range(77)]
    (run / "summary.json").write_text(json.dumps(summary))
    page = page_of(cli, tmp_path, "run=run", "predictions=false")
    assert "img" in page.kinds
    assert "Most confused pairs" in page.text
    assert "All 769 samples of test" in page.text


def test_letters_of_any_alphabet_are_shown(cli: Callable[..., Answer], tmp_path: Path) -> None:
    run = made_run(tmp_path / "跑步-🚀")
    summary = json.loads((run / "summary.json").read_text()) | {"classes": ["猫", "собака"]}
    summary["test"]["confusion"] = [[3, 1], [2, 4]]
    (run / "summary.json").write_text(json.dumps(summary))
    page = page_of(cli, tmp_path, f"run={run.name}", "predictions=false")
    assert all(text in page.text for text in ("猫", "собака", "跑步-🚀"))


def test_a_secret_is_not_shown(cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hf-abcdef123")
    made_run(tmp_path / "run", note="hf-abcdef123", api_key="plain-text", hub={"token": "${oc.env:MY_TOKEN}"})
    page = page_of(cli, tmp_path, "run=run", "predictions=false")
    assert "hf-abcdef123" not in page.text
    assert "plain-text" not in page.text
    assert page.text.count("${oc.env:MY_TOKEN}") == 2


def test_several_runs_and_a_sweep(cli: Callable[..., Answer], tmp_path: Path) -> None:
    made_sweep(tmp_path / "sweep", {0.1: [0.9, 0.92], 0.2: [0.8, 0.85]})
    made_run(tmp_path / "sweep" / "4", None, lr=0.3, state="failed")
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    answer = cli("run=sweep", cwd=tmp_path, verb="report")
    assert answer.code == 0, answer.err
    page = Page((tmp_path / "sweep" / "report.html").read_text(encoding="utf-8"))
    assert page.headings == ["Leaderboard", "Curves", "Over each hyperparameter", "Not finished", "Environment"]
    assert "Best: lr=0.1 with val/accuracy 91.00%" in page.text
    page = page_of(cli, tmp_path, "sweep/0", "sweep/2")
    assert "The best test/accuracy is 89.00%, of 0." in page.text
    assert "optim.lr" in page.text
    assert "Parallel coordinates" not in page.text
    changed = tmp_path / "sweep" / "0" / "config.yaml"  # evaluated on other samples than the other jobs
    changed.write_text(changed.read_text(encoding="utf-8") + "limit_batches: 1\n", encoding="utf-8")
    page = page_of(cli, tmp_path, "run=sweep")
    assert "Parallel coordinates" in page.headings
    assert "Best:" not in page.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "run: needs a value"),
        (("run=nowhere",), "'nowhere': there is no run or sweep"),
        (("run=run", "output=page.pdf"), "output: must be a file name that ends in .html, got 'page.pdf'"),
        (("run=run", "predictions=maybe"), "predictions: there is no 'maybe'"),
        (("run=run", "device=gpu"), "device: there is no 'gpu'; choices: auto, cpu, cuda"),
        (("run=run", "colour=red"), "colour=red: no such setting"),
    ],
)
def test_mistakes_are_told(words: tuple[str, ...], said: str, cli: Callable[..., Answer], tmp_path: Path) -> None:
    made_run(tmp_path / "run")
    (line,) = is_quiet(cli(*words, cwd=tmp_path, verb="report"), code=2)
    assert line.startswith(said)


def test_a_page_that_cannot_be_written(cli: Callable[..., Answer], tmp_path: Path) -> None:
    made_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    (line,) = is_quiet(cli("run=run", "predictions=false", "output=file/a.html", cwd=tmp_path, verb="report"), code=5)
    assert line.startswith("file/a.html: cannot be written: ")


def test_without_the_extra(cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made_run(tmp_path / "run")
    (line,) = is_quiet(cli("run=run", cwd=tmp_path, verb="report"), code=2)
    assert line == "report: needs matplotlib; pip install 'bigmodel-train[plots]'"
    assert files.try_write(tmp_path, lambda: "") == ""
    assert not (tmp_path / "report.html").exists()


def test_a_run_ends_with_its_page(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = cli(*TINY, cwd=tmp_path)
    assert answer.code == 0, answer.err
    file = only_run(tmp_path) / "report.html"
    before, last = answer.out.splitlines()[-2:]
    assert last.strip() == f"report  {file.relative_to(tmp_path)}"
    assert last.index("outputs/") == before.index("bigmodel-train")  # it stands under the other lines
    text = file.read_text(encoding="utf-8")
    assert "Most confident mistakes" in Page(text).headings
    assert ">running</span>" not in text  # its lock is still held


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.05, "0.05"), (12345, "12,345"), (1234567, "1.235e6"), (0.001275, "0.001275"), (0.0001275, "1.275e-4")),
        *((-0.00014, "-1.4e-4"), (4.2e-07, "4.2e-7"), (1e-5, "1e-5"), (0, "0")),
    ],
)
def test_a_tick_has_room_beside_its_axis(value: float, text: str) -> None:
    assert tick_label(value) == text
    assert len(text.lstrip("-")) <= 8


def fail(*_: object) -> str:
    raise RuntimeError("the pencil broke")


def test_a_page_that_fails_is_a_warning(tmp_path: Path) -> None:
    said = files.try_write(tmp_path, fail)
    assert said == "warning: report.html could not be written: RuntimeError: the pencil broke"


def test_a_page_without_room_says_so_in_the_words_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "can_draw", lambda: True)
    monkeypatch.setattr(files, "write_text", full)
    assert files.try_write(tmp_path, str) == (
        f"warning: report.html could not be written: {tmp_path}/report.html: No space left on device; "
        f"all else is saved; once fixed, run: bigmodel-report {path_override('run', tmp_path)}"
    )


def test_a_signal_ends_the_drawing_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> str:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on")

    monkeypatch.setattr(files, "can_draw", lambda: True)
    stop = StopRequest()
    before = signal.signal(signal.SIGTERM, stop.handle)
    try:
        stop.defer()
        said = files.try_write(tmp_path, slow)
        assert signal.getsignal(signal.SIGTERM) == stop.handle
    finally:
        signal.signal(signal.SIGTERM, before)
    assert said == (
        "report.html: stopped by SIGTERM; all else is done and saved; "
        f"bigmodel-report {path_override('run', tmp_path)} draws it"
    )
    assert not stop()
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_has_saved_nothing(cli: Callable[..., Answer], tmp_path: Path) -> None:
    shutil.rmtree(made_run(tmp_path / "run", state="failed").joinpath("checkpoints"), ignore_errors=True)
    answer = cli("run=run", cwd=tmp_path, verb="report")
    assert answer.code == 0, answer.err
    assert answer.err == "warning: no predictions: run: 'run' has saved no checkpoint\n"


def test_a_signal_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> str:
        raise Interrupted("stopped by SIGINT")

    made_run(tmp_path / "run")
    monkeypatch.setattr("bigmodel.runs.report.sources.from_checkpoint", stopped)
    with pytest.raises(Interrupted):  # and is no page without predictions
        build.build_page([tmp_path / "run"])


@pytest.mark.slow
def test_a_page_that_fails_does_not_fail_the_run(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "finished_run_page", fail)
    answer = cli(*TINY, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "warning: report.html could not be written: RuntimeError: the pencil broke"
    monkeypatch.setattr(files, "can_draw", lambda: False)
    answer = cli(*TINY, "output_dir=others", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "report" not in answer.out + answer.err
    assert not list(tmp_path.glob("others/*/*/report.html"))


@pytest.mark.slow
def test_a_sweep_ends_with_one_page(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = cli("-m", *TINY, "seed=1,2", "jobs=1", cwd=tmp_path)
    assert answer.code == 0, answer.err
    (sweep,) = tmp_path.glob("outputs/sweeps/*")
    assert answer.out.splitlines()[-1] == f"report  {(sweep / 'report.html').relative_to(tmp_path)}"
    assert [*sweep.rglob("report.html")] == [sweep / "report.html"]
    assert "Leaderboard" in Page((sweep / "report.html").read_text(encoding="utf-8")).headings


def test_a_link_in_its_place_is_not_followed(cli: Callable[..., Answer], tmp_path: Path) -> None:
    run, other = made_run(tmp_path / "run"), tmp_path / "precious"
    other.write_text("kept")
    (run / "report.html").symlink_to(other)
    assert cli("run=run", "predictions=false", cwd=tmp_path, verb="report").code == 0
    assert other.read_text() == "kept"
    assert not (run / "report.html").is_symlink()


def test_data_that_is_gone_costs_a_line(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    shutil.copytree(Path(__file__).parents[1] / "old_runs", tmp_path / "here")
    (tmp_path / "here" / "rows.csv").unlink()
    answer = cli("run=table", "device=cpu", cwd=tmp_path / "here", verb="report")
    assert answer.code == 0, answer.err
    page = Page((tmp_path / "here" / "table" / "report.html").read_text(encoding="utf-8"))
    assert "no predictions: " in page.text
    assert "rows.csv" in page.text
    assert answer.err.startswith("warning: no predictions: ")
    assert len(answer.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "table", "text"])
def test_pages_of_old_runs(name: str, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    shutil.copytree(Path(__file__).parents[1] / "old_runs", tmp_path / "here")
    page = page_of(cli, tmp_path / "here", f"run={name}", "device=cpu")
    assert "no predictions" not in page.text
    assert ("Passages" if name == "text" else "Most confident mistakes") in page.headings


HEADINGS = {  # what is shown of each kind of prediction
    "audio_cnn": "Most confident mistakes",
    "bert": "Labels",
    "deepspeech": "Worst texts",
    "dlinear": "A typical forecast",
    "gpt": "A continued text",
    "masked_bert": "Hidden tokens",
    "seq2seq": "Worst texts",
    "tabular_mlp": "Calibration",
    "text_cnn": "Calibration",
    "wavenet": "Clips",
    "xlnet": "Hidden tokens",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADINGS)
def test_pages_of_every_kind_of_prediction(name: str, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    family: Family = FAMILIES[name]
    family.data(tmp_path)
    answer = cli(f"model={name}", *family.words, "device=cpu", "limit_batches=2", "epochs=2", cwd=tmp_path)
    assert answer.code == 0, answer.err
    run = only_run(tmp_path)
    at_the_end = Page((run / "report.html").read_text(encoding="utf-8"))
    page = page_of(cli, tmp_path, f"run={run}", "device=cpu")
    for one in (at_the_end, page):
        assert "no predictions" not in one.text
        assert HEADINGS[name] in one.headings
    assert ("audio" in page.kinds) == (name in ("audio_cnn", "deepspeech", "wavenet"))


@pytest.mark.slow
def test_mistakes_of_pictures_name_their_files(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    for number in range(40):
        folder = tmp_path / "photos" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    words = ("dataset=image_folder", "dataset.root=photos", "dataset.input_shape=[3,8,8]", "dataset.val_fraction=0.5")
    answer = cli(*words, "model=mlp", "device=cpu", "epochs=1", cwd=tmp_path)
    assert answer.code == 0, answer.err
    page = Page((only_run(tmp_path) / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"file (cat/\d*[13579]|dog/\d*[02468])\.png", " ".join(page.text.split()))
    assert "audio" not in page.kinds


@pytest.mark.slow
def test_pages_of_numbers(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    lines = (f"{n % 7},{'abc'[n % 3]},{n % 7 * 10 + n % 3}" for n in range(260))
    (tmp_path / "rows.csv").write_text("\n".join(["size,hue,price", *lines]) + "\n", encoding="utf-8")
    table = ("dataset=table", "dataset.root=.", "dataset.train=rows.csv", "dataset.categorical_columns=[hue]")
    target = ("dataset.target=price", "dataset.target_type=number", "task=regression", "loss=mse", "monitor=val/loss")
    answer = cli(*table, *target, "model=tabular_mlp", "device=cpu", "epochs=2", cwd=tmp_path)
    assert answer.code == 0, answer.err
    page = page_of(cli, tmp_path, f"run={only_run(tmp_path)}", "device=cpu")
    assert {"Predictions", "Largest errors"} <= {*page.headings}


def damaged(seed: int, run: Path) -> Iterator[str]:
    """Damage one file of a run, and say how."""
    chance = random.Random(seed)
    file = run / chance.choice(FILES)
    if chance.random() < 0.4:
        text = chance.choice(TEXTS)
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
    elif file.suffix != ".yaml":
        old = json.loads(file.read_text().splitlines()[0])
        for key in chance.sample([*old], min(3, len(old))):
            old[key] = chance.choice(VALUES)
        if "test" in old and isinstance(old["test"], dict):
            old["test"]["confusion"] = chance.choice([*VALUES, [[1, 2], [3]], [["a"]], [[1e9]]])
        file.write_text(json.dumps(old).replace('"a number of 5000 digits"', "9" * 5000))
    yield f"{file.name}: {file.read_text(errors='replace')[:200]!r}"


@pytest.mark.slow
def test_damaged_runs_have_pages(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    for seed in range(60):
        run = made_run(tmp_path / str(seed))
        (how,) = damaged(seed, run)
        answer = cli(f"run={run}", "predictions=false", cwd=tmp_path, verb="report")
        assert answer.code == 0, (how, answer.err)
        Page((run / "report.html").read_text(encoding="utf-8"))
