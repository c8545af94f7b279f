"""Rows, texts, sounds and series in memory become the samples that their files become."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.wav import write_wav
from bigmodel.errors import DataError
from bigmodel.inference.inputs import load_inputs
from bigmodel.inference.processors.image_values import ImageMultiLabelProcessor, ImageRegressionProcessor
from bigmodel.inference.processors.images import ImageClassificationProcessor
from bigmodel.inference.processors.sentences import TextClassificationProcessor
from bigmodel.inference.processors.series import ForecastProcessor
from bigmodel.inference.processors.sounds import AudioClassificationProcessor
from bigmodel.inference.processors.speech import SpeechRecognitionProcessor
from bigmodel.inference.processors.tables import TableProcessor


def read(kind, given):
    """The samples, or the words of what went wrong."""
    return [found if isinstance(found, torch.Tensor) else str(found) for _, found in load_inputs(kind, given)]


@pytest.fixture
def table():
    return TableProcessor(
        numbers=["age"],
        mean=[40.0],
        std=[10.0],
        categories={"job": ["clerk", "smith"]},
        target="pay",
        columns=None,
        separator=",",
        comment=None,
        strip=" ",
        missing=["?"],
        classes=["no", "yes"],
    )


@pytest.mark.parametrize("background", [None, "white", "black"])
def test_a_clear_or_deep_picture_is_read_by_the_runs_rules(background, tmp_path):
    kind = ImageClassificationProcessor(
        ["a"], (3, 5, 5), [0.5] * 3, [0.5] * 3, value_range="type", background=background
    )
    clear = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    deep = np.random.default_rng(1).integers(0, 65536, (9, 7), dtype=np.uint16)
    for pixels in (clear, deep):
        image = Image.fromarray(pixels)
        image.save(tmp_path / "one.png")
        wanted, *found = read(kind, [tmp_path / "one.png", Image.open(tmp_path / "one.png"), image, pixels])
        assert all(torch.equal(one, wanted) for one in found)


def test_a_row_is_a_dict(table, tmp_path):
    (tmp_path / "rows.csv").write_text("age,job\n50,smith\n?,clerk\n,other\n")
    wanted = read(table, tmp_path / "rows.csv")
    missing = [None, math.nan, "?", np.float64("nan")]
    for none in missing:
        given = [
            {"job": "smith", "age": 50, "pay": "yes"},
            {"age": none, "job": "clerk"},
            {"age": none, "job": "other"},
        ]
        assert all(map(torch.equal, read(table, given), wanted))
    (one,) = read(table, {"age": np.int64(50), "job": "smith"})
    assert torch.equal(one, wanted[0])
    for wrong, word in (({"age": 1}, "'job'"), ({"age": "x", "job": "smith"}, "'x'"), (torch.zeros(2), "dict")):
        (said,) = read(table, [wrong])
        assert word in said


def test_a_text_is_one_input_and_a_file_a_text_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = TextClassificationProcessor(["a", "b"], {"name": "byte"}, 20)
    (tmp_path / "texts.txt").write_text("one\n\ntwo\n")
    assert [name for name, _ in load_inputs(kind, "texts.txt")] == ["one", "two"]
    assert [name for name, _ in load_inputs(kind, tmp_path / "texts.txt")] == ["one", "two"]
    assert [name for name, _ in load_inputs(kind, "one\ntwo")] == ["one\ntwo"]
    assert [name for name, _ in load_inputs(kind, ["one", "photos/*.png"])] == ["one", "photos/*.png"]
    assert "there is no file" in read(kind, tmp_path / "gone.txt")[0]
    assert "folder" in read(kind, tmp_path)[0]
    assert "standard input" in read(kind, "-")[0]
    assert "not a int" in read(kind, 5)[0]


@pytest.mark.parametrize(
    "kind",
    [AudioClassificationProcessor(["a"], 30, LogMel()), SpeechRecognitionProcessor("ab", LogMel())],
    ids=["sounds", "speech"],
)
@pytest.mark.parametrize("rate", [8000, 11025])
def test_a_sound_is_samples_and_their_rate(kind, rate, tmp_path):
    codes = (np.sin(np.arange(4000) / 9) * 20000).astype(np.int16)
    write_wav(tmp_path / "a.wav", torch.from_numpy(codes / np.float32(32767)), rate)
    (wanted,) = read(kind, tmp_path / "a.wav")
    floats = codes / 32768
    stereo = np.stack([codes, codes], 1)
    forms = [
        codes,
        floats,
        floats.astype(np.float32),
        torch.from_numpy(codes),
        stereo,
        torch.from_numpy(stereo.T.copy()),
    ]
    for form in forms:
        (found,) = read(kind, (form, rate))
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)
    assert len(read(kind, [(codes, rate), (codes, rate)])) == 2
    for wrong in (codes, (codes, 5), (codes[:0], rate), (codes.astype(np.int64), rate), (floats * np.nan, rate)):
        assert isinstance(read(kind, [wrong])[0], str)


def test_series_are_an_array_or_columns(tmp_path):
    kind = ForecastProcessor(["a", "b"], None, 4, False, ",", [1.0, 2.0], [2.0, 3.0])
    values = np.arange(12, dtype=np.float64).reshape(6, 2)
    (tmp_path / "s.csv").write_text("a,b\n" + "\n".join(",".join(map(str, row)) for row in values))
    (wanted,) = read(kind, tmp_path / "s.csv")
    forms = [values, torch.from_numpy(values), {"b": values[:, 1], "a": list(values[:, 0]), "c": None}]
    for form in forms:
        (found,) = read(kind, form)
        assert torch.equal(found, wanted)
    assert len(read(kind, np.stack([values, values, values]))) == 3
    for wrong in (values[:3], values[:, :1], values * np.nan, {"a": [1]}, {"a": ["x"] * 6, "b": [1] * 6}):
        (said,) = read(kind, [wrong])
        assert said.startswith("input: ")


def test_a_kind_of_somebody_else_that_takes_files_alone_says_so():
    class Plain:
        def list_inputs(self, given):
            return [given]

        def load(self, source):
            if source == "bad":
                raise DataError("bad.txt: bad")
            return torch.zeros(1)

    assert torch.equal(read(Plain(), "good")[0], torch.zeros(1))
    assert read(Plain(), ["bad", 5])[0] == "bad.txt: bad"
    assert "reads files or texts, not a int" in read(Plain(), 5)[0]


WRITTEN = {  # how a file is written, which says nothing of its values
    *("separator", "comment", "columns", "time", "time_format", "header", "encoding", "decimal"),
    *("text_column", "label_column", "by_file"),
}
BUILT = {
    ImageClassificationProcessor: (
        {"classes": ["a"], "input_shape": (1, 4, 4), "mean": [0.1], "std": [0.2]},
        {
            **{"classes": ["b"], "input_shape": (1, 4, 5), "mean": [0.3], "std": [0.4]},
            **{"value_range": "type", "background": "white"},
        },
    ),
    ImageRegressionProcessor: (
        {"target": "a", "target_mean": 1.0, "target_std": 2.0, "input_shape": (1, 4, 4), "mean": [0.1], "std": [0.2]},
        {
            **{"target": "b", "target_mean": 3.0, "target_std": 4.0, "input_shape": (1, 4, 5), "mean": [0.3]},
            **{"std": [0.4], "value_range": "type", "background": "white"},
        },
    ),
    ImageMultiLabelProcessor: (
        {"labels": ["a"], "input_shape": (1, 4, 4), "mean": [0.1], "std": [0.2]},
        {
            **{"labels": ["b"], "input_shape": (1, 4, 5), "mean": [0.3], "std": [0.4]},
            **{"value_range": "type", "background": "white"},
        },
    ),
    TextClassificationProcessor: (
        {"classes": ["a"], "tokenizer": {"name": "byte"}, "context": 4},
        {"classes": ["b"], "tokenizer": {"name": "word", "words": ["c"]}, "context": 5},
    ),
    AudioClassificationProcessor: (
        {"classes": ["a"], "frames": 9, "features": LogMel()},
        {"classes": ["b"], "frames": 8, "features": LogMel(mels=30)},
    ),
    SpeechRecognitionProcessor: (
        {"characters": "ab", "features": LogMel()},
        {"characters": "abc", "features": LogMel(hop=90)},
    ),
    ForecastProcessor: (
        {"columns": ["a"], "time": None, "window": 4, "log": False, "separator": ",", "mean": [1.0], "std": [2.0]},
        {
            **{"window": 5, "log": True, "mean": [3.0], "std": [4.0]},
            **{"missing": ["?"], "sentinels": [-200.0], "fill": "linear", "gaps": "fill"},
        },
    ),
    TableProcessor: (
        {
            **{"numbers": ["a"], "mean": [1.0] * 5, "std": [2.0] * 5, "categories": {"b": ["x"]}, "target": "y"},
            **{"columns": None, "separator": ",", "comment": None, "strip": " ", "missing": [""]},
            "dates": {"day": None},
        },
        {
            **{"numbers": ["c"], "mean": [3.0] * 5, "std": [4.0] * 5, "categories": {"b": ["z"]}, "target": "t"},
            **{"strip": "_", "missing": ["?"], "classes": ["no"], "target_mean": 5.0, "target_std": 6.0},
            "dates": {"day": "%d.%m.%Y"},
        },
    ),
}


@pytest.mark.parametrize("kind", BUILT, ids=lambda kind: kind.__name__)
def test_whatever_a_kind_is_built_from_is_in_its_steps(kind):
    """A new parameter belongs in `steps` and here, or an exported model would be used without it."""
    base, others = BUILT[kind]
    assert set(inspect.signature(kind).parameters) - WRITTEN == set(others)
    before = json.dumps(kind(**base).steps(), default=str)
    for name, value in others.items():
        assert json.dumps(kind(**{**base, name: value}).steps(), default=str) != before, name
