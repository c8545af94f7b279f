"""`bigmodel.train` and `bigmodel.load`: what Python sees is what the command line does, and nothing of it stays."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bigmodel
from bigmodel import python_api as in_process
from bigmodel.errors import BigmodelError, ConfigError, DataError, Interrupted, StorageError
from bigmodel.inference.prediction import Prediction, Predictions
from bigmodel.runs.display.curve import Line, draw_lines
from conftest import TINY, call, fingerprint, records
from made_runs import made_run, made_sweep

ROOT = Path(__file__).parents[1]
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A run made by Python."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("python"))
    data = os.environ.pop("BIGMODEL_DATA_DIR", None)  # it would be in the config
    try:
        yield bigmodel.train([*TINY, "log_every=2steps"])
    finally:
        os.chdir(before)
        if data is not None:
            os.environ["BIGMODEL_DATA_DIR"] = data


@pytest.fixture(scope="module")
def model(digits_run):
    return digits_run.load()


@pytest.fixture
def picture(tmp_path):
    """Pixels that no resizing changes, as an array and as a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return pixels, tmp_path / "one.png"


def test_only_what_is_promised_is_exported_and_the_import_is_light():
    assert bigmodel.__all__ == ["__version__", "load", "runs", "train"]
    public = {n for n, v in vars(bigmodel).items() if n[0] != "_" and getattr(v, "__module__", "") == "bigmodel"}
    assert public | {"__version__"} == set(bigmodel.__all__)
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import bigmodel, sys; print({'torch', 'hydra', 'numpy', 'yaml'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert said.stdout.strip() == "set()"


def test_python_trains_the_run_that_the_command_line_trains(digits_run, tiny_run):
    assert fingerprint(digits_run.directory) == fingerprint(tiny_run.run)
    assert records(digits_run.directory) == records(tiny_run.run)
    assert (digits_run.directory / "config.yaml").read_text() == (tiny_run.run / "config.yaml").read_text()
    assert sorted(p.name for p in digits_run.directory.iterdir()) == sorted(p.name for p in tiny_run.run.iterdir())
    assert digits_run.summary == json.loads((digits_run.directory / "summary.json").read_text())
    assert digits_run.state == "done"
    assert digits_run.best["metric"] == "val/accuracy"
    assert digits_run.best["step"] == json.loads((digits_run.directory / "checkpoints/best.json").read_text())["step"]
    assert [record["split"] for record in digits_run.metrics].count("test") == 1
    assert re.fullmatch(r"Run\('/.*', done, val/accuracy=0\.\d+ at step \d\)", repr(digits_run))
    command = json.loads((digits_run.directory / "environment.json").read_text())["command"]
    assert command == ["bigmodel-train", *TINY, "log_every=2steps"]


def _state():
    return {
        "handlers": [signal.getsignal(number) for number in NUMBERS],
        "argv": sys.argv,
        "path": list(sys.path),
        "environment": dict(os.environ),
        "threads": (torch.get_num_threads(), sorted(thread.name for thread in threading.enumerate())),
        "random": torch.get_rng_state().tolist(),
        "switches": (
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
        ),
    }


@pytest.mark.parametrize("words", [("epochs=1",), ("optim.lr=nan",), ("optim.lr=1e9", "epochs=2")])
def test_a_run_leaves_the_process_as_it_was(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    torch.set_float32_matmul_precision("high")
    before = _state()
    try:
        bigmodel.train(
            [*TINY[:-1], "device.deterministic=true", f"device.threads={torch.get_num_threads() + 1}", *words]
        )
    except BigmodelError:
        assert words != ("epochs=1",)
    else:
        assert words == ("epochs=1",)
    finally:
        after = _state()
        torch.set_float32_matmul_precision("highest")
    assert after == before


def test_a_programs_own_hydra_is_left_alone(tmp_path, monkeypatch):
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        bigmodel.train([*TINY], dry_run=True)
        assert GlobalHydra.instance().hydra is own


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["optim.lrr=0.1"], r"optim\.lrr: no such setting; did you mean optim\.lr\?"),
        (["-m", "optim=sgd,adam"], "makes one run"),
        (["seeds=3"], "makes one run"),
        (["--help"], "only trains"),
        (["--nothing"], "no such flag"),
        (["resume=nothing"], "resume"),
        ("model=mlp", "must be a list"),
        ({"model": "mlp"}, "must be a list"),
        (iter(["model=mlp"]), "must be a list"),  # the look at its words would use it up
        ({"model=mlp"}, "must be a list"),  # in no order
    ],
)
def test_mistakes_are_exceptions_with_the_code_of_the_command_line(tmp_path, monkeypatch, words, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=match) as caught:
        bigmodel.train(words)
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert bigmodel.train([*TINY], dry_run=True) is None
    assert "10 classes" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_saves_and_a_run_can_be_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from bigmodel.training.state import TrainState

    update = TrainState.train_step

    def interrupted(job, batch):
        update(job, batch)
        if job.step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "train_step", interrupted)
        with pytest.raises(Interrupted, match="stopped by SIGINT at step 2 of 6, saved") as caught:
            bigmodel.train([*TINY, "log_every=2steps"])
    assert caught.value.code == 75
    (directory,) = tmp_path.glob("outputs/*/*")
    run = bigmodel.train([f"resume={directory}"])
    assert (run.directory, run.state) == (directory, "done")
    stop = in_process._InterruptOnce()
    stop.defer()
    stop.handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)


def test_another_thread_trains_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    thread = threading.Thread(target=lambda: made.append(bigmodel.train([*TINY])))
    thread.start()
    thread.join()
    assert made[0].state == "done"


def test_every_form_of_a_picture_has_the_answer_of_its_file(model, picture, tmp_path, monkeypatch):
    pixels, file = picture
    monkeypatch.chdir(tmp_path)
    ((name, wanted),) = model.predict(file)
    assert name == str(file)
    rgb = np.repeat(pixels[..., None], 3, 2)
    forms = [
        str(file),
        "one.png",
        "*.png",
        tmp_path,
        [file],
        iter([str(file)]),
        Image.open(file),
        pixels,
        pixels[..., None],
        pixels[None],  # channels first, for they cannot be last
        rgb,
        pixels / 255,
        (pixels / 255).astype(np.float32),
        pixels.astype(np.int64),
        torch.from_numpy(pixels),
        torch.from_numpy(pixels)[None],
        torch.from_numpy(rgb).permute(2, 0, 1) / 255,
        pixels[None, ..., None],  # a batch of one
    ]
    for form in forms:
        (prediction,) = model.predict(form)
        assert prediction.error is None, (form, prediction.error)
        assert prediction.answer == wanted
    assert len(model.predict(np.stack([pixels, pixels])[..., None])) == 2
    printed = call(
        f"run={model.path}", f"input={file}", "device=cpu", "format=json", "top=10", cwd=tmp_path, verb="predict"
    )
    assert json.loads(printed.out) == {"input": str(file), **wanted}


def test_a_bad_input_does_not_fail_the_others(model, picture, tmp_path):
    pixels, file = picture
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    given = [file, "gone.png", tmp_path / "torn.png", 5, pixels * 2.0, np.zeros((2, 2, 7)), {"a": 1}, pixels, "-", None]
    predictions = model.predict(given, batch_size=3)
    assert [prediction.error is None for prediction in predictions] == [one is pixels or one is file for one in given]
    assert predictions[0].answer == predictions[7].answer
    for prediction in predictions:
        if prediction.error:
            assert prediction.answer == {"error": prediction.error}
            assert "\n" not in prediction.error
    assert "no image, folder or match for 'gone.png'" in predictions[1].error
    assert "torn.png" in predictions[2].input
    assert "0 to 1 (floats)" in predictions[4].error
    assert model.predict([]) == []
    (missing,) = model.predict("gone.png")
    assert missing.input == "gone.png"


ODD = {  # what is no picture, and what is said of it
    "no name": (lambda: "", "input: is empty"),
    "a name too long for a file": (lambda: "x" * 5000, "input: there is no image, folder or match"),
    "objects": (lambda: np.array([[None]]), "an array holds real numbers, got object"),
    "texts": (lambda: np.array([["a"]]), "an array holds real numbers"),
    "complex numbers": (lambda: np.zeros((8, 8), complex), "an array holds real numbers, got complex128"),
    "a tensor without values": (lambda: torch.empty(8, 8, device="meta"), "the tensor cannot be read"),
    "no pixels": (lambda: Image.new("L", (0, 0)), "a picture without pixels: 0 by 0"),
    "an open file": (lambda: io.BytesIO(b"a\nb"), "a BytesIO is not a picture"),
}


@pytest.mark.parametrize(("odd", "says"), ODD.values(), ids=ODD.keys())
def test_whatever_is_among_them_the_others_are_answered(model, picture, odd, says):
    pixels, _ = picture
    bad, good = model.predict([odd(), pixels])
    assert says in bad.error
    assert good.error is None


def test_a_tensor_of_any_type_and_layout_is_its_values(model):
    values = torch.eye(8)
    (wanted,) = model.predict(values)
    for same in (values.bfloat16(), values.to_sparse(), values.requires_grad_()):
        assert model.predict(same) == [wanted]


def test_numbers_of_numpy_are_options_and_one_name_is_trusted_as_one(model, picture, digits_run):
    _, file = picture
    assert model.predict(file, top=np.int64(2)) == model.predict(file, top=2)
    assert bigmodel.load(digits_run.directory, trust="my_parts").trust == ("my_parts",)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"output": "here"}, "output: this run's ImageClassificationProcessor has no such option; it has top"),
        ({"topk": 2}, r"topk: no such setting; did you mean top\?"),
        ({"batchsize": 2}, r"batchsize: no such setting; did you mean batch_size\?"),
        ({"top": 0}, "top: must be"),
        ({"top": "3"}, "top: must be"),
        ({"batch_size": 0}, "batch_size: must be"),
        ({"sample": {"seed": 1}}, "sample: this run's ImageClassificationProcessor has no such option"),
        ({"top": 0, "beam": 2, "batch_size": 0}, r"(?s)beam: .*top: must be .*batch_size: must be"),
    ],
)
def test_a_wrong_option_is_refused(model, picture, options, match):
    with pytest.raises(ConfigError, match=match):
        model.predict(picture[0], **options)


def test_the_repr_says_what_the_model_is(model, digits_run):
    shown = repr(model)
    assert "\n" not in shown
    for part in ("MLP", "task=classification", "10 classes: 0 1 2 3 4 ...", "device=cpu", str(digits_run.directory)):
        assert part in shown
    assert f"step={digits_run.best['step']}" in shown
    assert re.search(r"val/accuracy=0\.\d+", shown)
    assert re.search(r"[\d,]+ parameters", shown)


def test_load_takes_names_of_devices(digits_run):
    assert bigmodel.load(digits_run.directory, device="auto").device.torch_device.type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:x", "cpu:", "xla"):
        with pytest.raises(ConfigError, match="device"):
            bigmodel.load(digits_run.directory, device=name)


def test_a_picture_turned_by_its_camera_is_turned_in_memory_too(model, tmp_path):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    file, memory, flat = model.predict([tmp_path / "turned.png", Image.open(tmp_path / "turned.png"), image])
    assert file.answer == memory.answer != flat.answer


def _notebook():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


def test_the_notebook_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(_notebook(), "docs/python.md", "exec"), names)
    said = capsys.readouterr().out
    assert "2 optim.lrr: no such setting; did you mean optim.lr?" in said
    assert "topk: no such setting; did you mean top?" in said
    assert "gone.png" in said
    assert str(names["model"]).startswith("Predictor(MLP, task=classification, 10 classes: 0 1 2 3 4 ...")


def test_an_error_of_data_has_its_code():
    assert (DataError("x").code, Interrupted("x").code) == (3, 75)


@pytest.fixture
def outputs(tmp_path):
    """Four made runs and a sweep of two."""
    day = tmp_path / "outputs" / "2026-11-24"
    made_run(day / "10-00-00-aaaa", 0.95, model="cnn", started="2025-11-24T10:00:00+00:00")
    made_run(day / "11-00-00-bbbb", 0.70, lr=0.001, started="2025-11-24T11:00:00+00:00")
    made_run(day / "12-00-00-cccc", None, state="failed", started="2025-11-24T12:00:00+00:00")
    made_run(day / "13-00-00-dddd", 0.80, state=None, started="2025-11-24T13:00:00+00:00")
    made_sweep(tmp_path / "outputs" / "sweeps" / "2026-11-23_10-00-00-eeee", {0.2: [0.85], 0.3: [0.9]})
    return tmp_path / "outputs"


def test_runs_are_listed_as_on_the_command_line(outputs):
    found = bigmodel.runs(outputs)
    said = call("format=json", f"output_dir={outputs}", cwd=outputs, verb="runs").out.splitlines()
    assert [str(run.directory) for run in found] == [json.loads(line)["path"] for line in said]
    best = bigmodel.runs(outputs, "state=done", "test/accuracy>0.8", sort="test/accuracy", limit=2)
    assert [run.directory.name for run in best] == ["10-00-00-aaaa", "1"]
    assert (best[0].config["model"], best[0].best["value"], len(best[:1])) == ("cnn", 0.95, 1)
    assert [row["optim.lr"] for row in best.rows] == [0.1, 0.3]
    assert [run.directory.name for run in bigmodel.runs(outputs / "sweeps/2026-11-23_10-00-00-eeee", sort="path")] == [
        *("0", "1")
    ]
    assert [line.split()[-1][-2:] for line in repr(best).splitlines()[1:]] == ["aa", "/1"]
    assert repr(bigmodel.runs(outputs, "state=failed")[:0]) == "no runs"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("nowhere",), "directory: there is no directory 'nowhere'"),
        ((".", "optim.lrr=1"), r"optim\.lrr: no run has it; did you mean optim\.lr\?"),
        ((".", "nothing"), "nothing: no condition"),
    ],
)
def test_wrong_conditions_are_exceptions(outputs, monkeypatch, words, match):
    monkeypatch.chdir(outputs)
    with pytest.raises(ConfigError, match=match):
        bigmodel.runs(*words)


def test_the_folder_of_the_same_name_stays_a_function():
    import bigmodel.runs.records as records_module

    assert callable(bigmodel.runs)
    assert bigmodel.runs.records is records_module
    assert list(inspect.signature(bigmodel.runs).parameters) == ["directory", "conditions", "sort", "limit"]


def test_a_run_that_did_not_finish_shows_itself(outputs):
    states = {run.directory.name[-4:]: run for run in bigmodel.runs(outputs / "2026-11-24" / "13-00-00-dddd")}
    run = states["dddd"]
    assert (run.state, repr(run)) == ("interrupted", f"Run({str(run.directory)!r}, interrupted, val/accuracy=0.8)")
    with pytest.raises(StorageError, match=r"summary\.json: cannot be read"):
        _ = run.summary
    assert "interrupted" in run._repr_html_()


def test_what_a_notebook_shows_is_a_table_and_a_curve(digits_run, model, picture):
    shown = digits_run._repr_html_()
    assert shown.count("<svg") == 2
    for part in ("<table>", "digits", "val/accuracy", "test/loss", "polyline"):
        assert part in shown
    assert "85,002" not in model._repr_html_()
    assert re.search(r"parameters</th><td[^>]*>[\d,]+<", model._repr_html_())
    assert "classification" in model._repr_html_()
    predictions = model.predict([picture[0], "gone.png"], top=1)
    assert isinstance(predictions, list)
    assert "gone.png" in predictions._repr_html_()
    best = predictions[0].answer
    assert (
        f">{best['class']} {best['probability']:.4g}<" in predictions._repr_html_()
    )  # of `top`, as text and not as Python
    assert bigmodel.runs(digits_run.directory)._repr_html_().count("<svg") == 1


def test_a_run_stands_where_a_path_is_wanted(digits_run):
    assert os.fspath(digits_run) == str(digits_run.directory)
    assert repr(bigmodel.load(digits_run)) == repr(bigmodel.load(digits_run.directory))


def test_a_chart_says_how_many_runs_it_leaves_out() -> None:
    lines = [Line(f"run {number}", [1, 2], [number, number]) for number in range(9)]
    drawn = draw_lines("val/loss", lines)
    assert "val/loss, the first 8 of 9" in drawn
    assert drawn.count("<polyline") == 8
    assert ">val/loss<" in draw_lines("val/loss", lines[:8])


def test_hostile_texts_are_escaped_in_a_notebook(tmp_path):
    script = "<script>alert(1)</script>\x1b[2J\"'"
    path = made_run(tmp_path / "outputs" / "<img src=x onerror=alert(2)>" / "x", model="mlp", monitor=f"val/{script}")
    (path / "summary.json").write_text(json.dumps({"state": script, "monitor": f"val/{script}", "best": {"value": 1}}))
    event = {"split": "val", "step": 1, script: 0.5, "loss": 1e308}
    lines = [json.dumps(event | change) for change in ({}, {"step": 2, "loss": -1e308}, {"step": "<i>"})]
    (path / "metrics.jsonl").write_text("\n".join([*lines, "[" * 100_000, '{"split":']))
    found = bigmodel.runs(tmp_path / "outputs")
    for shown in (
        found._repr_html_(),
        found[0]._repr_html_(),
        Predictions([Prediction(script, {script: script})])._repr_html_(),
    ):
        assert "&lt;" in shown
        assert not re.search(r"<(script|img|i>)|\x1b|nan|inf", shown)
    assert "\x1b" not in repr(found)
    assert len(found[0].metrics) == 3
