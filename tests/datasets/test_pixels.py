"""Deep and transparent pictures: no value is lost without a word, and prediction reads as training did."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.image_folder import image_folder
from bigmodel.datasets.images.picture_files import open_image
from bigmodel.datasets.images.pixels import AS_BEFORE, PixelRules
from bigmodel.errors import DataError
from bigmodel.inference.processors.images import ImageClassificationProcessor
from conftest import Answer, call

RAMP = np.arange(256).reshape(16, 16) / 255


def pgm(path: Path, values: np.ndarray) -> None:
    path.write_bytes(b"P5\n16 16\n65535\n" + values.astype(">u2").tobytes())


def saved(kind: type, scale: float, low: float = 0):
    def save(path: Path, values: np.ndarray) -> None:
        Image.fromarray((values * scale + low).astype(kind)).save(path)

    return save


DEEP = {
    "16-bit pgm": ("pgm", lambda path, values: pgm(path, values * 65535), [0, 65535]),
    "int32 tiff": ("tif", saved(np.int32, 65535), [0, 65535]),
    "float tiff": ("tif", saved(np.float32, 1), [0, 1]),
    "float tiff to 255": ("tif", saved(np.float32, 255), [0, 255]),
    "12 bits in 16": ("png", saved(np.uint16, 4095), [0, 4095]),
    "8 bits in 16": ("png", saved(np.uint16, 255), [0, 255]),
    "16-bit tiff": ("tiff", saved(np.uint16, 65535), [0, 65535]),
    "Hounsfield": ("tif", saved(np.int32, 4000, -1000), [-1000, 3000]),
}


def folder(root: Path, ending: str, save) -> Path:
    for name, turned in (("a", RAMP), ("b", RAMP[::-1])):
        (root / name).mkdir(parents=True)
        for number in range(3):
            save(root / name / f"{number}.{ending}", np.roll(turned, number, 0))
    return root


def opened(root: Path, channels: int = 1, **settings: object) -> ImageDataset:
    rules = {"value_range": "auto", "background": "white", **settings}
    return image_folder(str(root), (channels, 16, 16), [0.5] * channels, [0.5] * channels, 0.0, ImageAugment(), **rules)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", DEEP)
def test_deep_values_keep_all_their_levels(kind: str, tmp_path: Path) -> None:
    ending, save, expected = DEEP[kind]
    data = opened(folder(tmp_path, ending, save))
    assert list(data.rules.value_range or ()) == expected
    assert sorted(data.sources["train"]().pixels()[0].unique().tolist()) == list(range(256))
    assert any("6 of 6 training pictures with more than 8 bits" in note for note in data.notes)
    assert not any("warning" in note for note in data.notes if "fewer than 5" not in note)
    kind_of_input = ImageClassificationProcessor(
        **{key: value for key, value in data.processor_spec().items() if key != "kind"}
    )
    assert kind_of_input.load(str(tmp_path / "a" / "0") + f".{ending}").equal(data.sources["train"]().pixels()[0])


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32), True),
        (np.linspace(300, 90000, 64).astype(np.int32), True),
        (np.linspace(0, 255, 64, dtype=np.float32), False),
        (np.zeros(64, np.float32), False),
        (np.full(64, np.nan, np.float32), False),
    ],
)
def test_a_deep_picture_without_a_range_is_not_read_as_one_level(values: np.ndarray, refused: bool) -> None:
    image = Image.fromarray(values.reshape(8, 8))
    if refused:
        with pytest.raises(ValueError, match="become one grey level in the value range 0 to 255"):
            PixelRules().converted(image, 1)
    else:
        assert PixelRules().converted(image, 1).mode == "L"


def test_a_stated_range_and_that_of_the_type_are_kept(tmp_path: Path) -> None:
    folder(tmp_path, "png", saved(np.uint16, 4095))
    half = opened(tmp_path, value_range=(0, 2047.5)).sources["train"]().pixels()
    assert half.max() == 255
    assert (half == 255).float().mean() > 0.4
    assert opened(tmp_path, value_range="type").sources["train"]().pixels().max() == 16
    with pytest.raises(ValueError, match="low below high"):
        PixelRules(value_range=(5, 5))


def test_values_outside_of_the_range_are_refused_not_drawn_in_one_colour(tmp_path: Path) -> None:
    saved(np.uint16, 4095, 300)(tmp_path / "a.png", RAMP)
    with pytest.raises(DataError, match=r"its values, 300 to 4395, become one grey level in the value range 0 to 255"):
        open_image(tmp_path / "a.png", (1, 16, 16), PixelRules((0, 255)))


def transparent(path: Path, mode: str) -> None:
    """A shape in alpha alone: every colour is black."""
    alpha = np.where(RAMP > 0.5, 255, 0).astype(np.uint8)
    if mode == "P":
        image = Image.fromarray((alpha > 0).astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.save(path, transparency=0)
        return
    black = np.zeros((16, 16), np.uint8)
    Image.merge(mode, [Image.fromarray(black)] * (len(mode) - 1) + [Image.fromarray(alpha)]).save(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_shape_drawn_only_in_alpha_is_seen(mode: str, tmp_path: Path) -> None:
    transparent(tmp_path / "a.png", mode)
    for channels in (1, 3):
        pixels = open_image(tmp_path / "a.png", (channels, 16, 16), PixelRules(background="white"))
        assert pixels[0].numpy().tolist() == np.where(RAMP > 0.5, 0, 255).tolist()
    red = open_image(tmp_path / "a.png", (3, 16, 16), PixelRules(background=(200, 0, 0)))
    assert red[:, 0, 0].tolist() == [200, 0, 0]
    assert open_image(tmp_path / "a.png", (1, 16, 16), AS_BEFORE).unique().tolist() == [0]  # as older runs read it


def test_what_shows_behind_transparent_pictures_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        transparent(tmp_path / name / "0.png", "LA")
        Image.fromarray((RAMP * 255).astype(np.uint8)).save(tmp_path / name / "1.png")
    count = "2 of 4 training pictures can be transparent"
    assert f"{count}: dataset.background=white shows behind them" in opened(tmp_path).notes
    older = opened(tmp_path, background=None).notes
    assert f"warning: {count}, and dataset.background=null shows their hidden colors" in older


def test_a_transparent_grey_of_sixteen_bits_is_laid_over_too(tmp_path: Path) -> None:
    values = np.where(RAMP > 0.5, 1000, 65535).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=1000)
    pixels = open_image(tmp_path / "a.png", (1, 16, 16), PixelRules("type", "black"))
    assert pixels[0].numpy().tolist() == np.where(RAMP > 0.5, 0, 255).tolist()


def test_opaque_pictures_are_what_they_were(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    now = open_image(tmp_path / "a.png", (3, 16, 16), PixelRules("type", "white"))
    assert now.equal(open_image(tmp_path / "a.png", (3, 16, 16)))


def test_pictures_of_one_colour_and_the_same_in_two_classes_are_warned_of(tmp_path: Path) -> None:
    data = opened(folder(tmp_path, "png", lambda path, _: Image.new("L", (16, 16), 9).save(path)))
    assert any("of one colour once decoded: 6 of 6 pictures looked at, as " in note for note in data.notes)
    assert any("are the same as one of another class" in note for note in data.notes)


def test_frames_and_deep_colours_that_are_not_read_are_told(tmp_path: Path) -> None:
    def stack(path: Path, values: np.ndarray) -> None:
        frames = [Image.fromarray((values * level).astype(np.uint8)) for level in (255, 100)]
        frames[0].save(path, save_all=True, append_images=frames[1:])

    data = opened(folder(tmp_path, "tif", stack))
    assert any("6 pictures with several frames, of which the first is read" in note for note in data.notes)


@pytest.mark.slow
def test_prediction_reads_as_the_run_was_trained(tmp_path: Path) -> None:
    folder(tmp_path / "data", "png", saved(np.uint16, 4095))
    words = ("dataset=image_folder", "dataset.root=data", "dataset.input_shape=[1,16,16]", "dataset.mean=[0.5]")
    plain = ("dataset.std=[0.5]", "model=mlp", "model.hidden=[4]", "device=cpu", "batch_size=2", "epochs=1")
    run: Answer = call(*words, *plain, "dataset.val_fraction=0.4", cwd=tmp_path)
    assert run.code == 0, run.err
    assert "value_range:\n  - 0.0\n  - 4095.0\n" in (run.run / "config.yaml").read_text()
    answer = call(f"run={run.run}", "input=data/a/0.png", "format=json", "device=cpu", cwd=tmp_path, verb="predict")
    evaluated = call(f"run={run.run}", "split=val", "format=json", "device=cpu", cwd=tmp_path, verb="evaluate")
    assert (answer.code, evaluated.code) == (0, 0), answer.err + evaluated.err
    assert json.loads(answer.out)["class"] in ("a", "b")
    again = call(f"resume={run.run}", "epochs=2", cwd=tmp_path)
    assert again.code == 0, again.err


def test_pillow_still_refuses_pictures_that_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="decompression bomb"):
        open_image(tmp_path / "a.png", (1, 8, 8))


def test_no_picture_starts_another_program(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    with pytest.raises(DataError, match=r"a.png: not a readable picture \(of no format that Pillow knows\)"):
        open_image(tmp_path / "a.png", (1, 8, 8))


def test_the_type_of_a_file_is_known_however_it_is_turned(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pgm(tmp_path / name / "0.pgm", RAMP * 65535)
    shown = opened(tmp_path, value_range="type").sources["train"]().pixels()[0, 0]
    assert (int(shown.min()), int(shown.max())) == (0, 255)


def test_values_of_32_bits_have_no_sign_unless_the_file_says_so(tmp_path: Path) -> None:
    plain = Image.fromarray(np.zeros((16, 16), np.int32))
    plain.save(tmp_path / "frame.tif")
    values = (RAMP * (2**32 - 1)).astype("<u4").tobytes()
    signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, kind) for kind in (2, 1))  # the tag of the sample format
    frame = (tmp_path / "frame.tif").read_bytes().replace(signed, unsigned)
    with Image.open(tmp_path / "frame.tif") as image:
        start = image.tag_v2[273][0]  # of the pixels
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.tif").write_bytes(frame[:start] + values + frame[start + len(values) :])
    for wanted in ("auto", "type"):
        shown = opened(tmp_path / "data", value_range=wanted).sources["train"]().pixels()[0, 0]
        assert shown.flatten().tolist() == list(range(256))


def test_infinite_values_are_black_and_white(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32)
    values[0, :2] = -np.inf, np.inf
    Image.fromarray(values).save(tmp_path / "0.tif")
    shown = open_image(tmp_path / "0.tif", (1, 16, 16), PixelRules([0, 1]))
    assert shown[0, 0, :2].tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_nearly_black_pictures_are_told(kind: str, tmp_path: Path) -> None:
    mask = saved(np.dtype(kind).type, 1)
    data = opened(folder(tmp_path, "png", lambda path, values: mask(path, values > 0.5)))
    (line,) = [note for note in data.notes if "pictures looked at is above 1 of 255: they are nearly black" in note]
    assert "dataset.value_range" in line
    ranged = [note for note in data.notes if "set dataset.value_range=[0,1]" in note]
    assert len(ranged) == (kind == "uint16")
    if ranged:
        mended = opened(tmp_path, value_range=(0.0, 1.0))
        assert not any("nearly black" in note for note in mended.notes)


def test_an_outlier_among_floats_names_its_setting(tmp_path: Path) -> None:
    folder(tmp_path, "tif", saved(np.float32, 1))
    saved(np.float32, 1e6)(tmp_path / "a" / "0.tif", RAMP)
    with pytest.raises(DataError, match=r"value range 0 to 1e\+06; set dataset\.value_range=\[low,high\] to the"):
        opened(tmp_path)
    saved(np.float32, 100)(tmp_path / "a" / "0.tif", RAMP)
    with pytest.raises(DataError, match=r"value range 0 to 255; set dataset\.value_range=\[low,high\] to the"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("array", "dark"),
    [
        (np.eye(16, dtype=np.uint8), True),
        (np.eye(16, dtype=np.int64) * 15, True),
        (np.eye(16, dtype=np.uint16) * 200, True),
        (np.eye(16, dtype=np.uint8) * 200, False),
        (np.eye(16, dtype=np.float32), False),
        (np.eye(16, dtype=np.bool_), False),
        (np.zeros((16, 16), np.uint8), False),
    ],
)
def test_an_array_of_small_whole_numbers_is_warned_of(array: np.ndarray, dark: bool) -> None:
    kind = ImageClassificationProcessor(["a", "b"], (1, 16, 16), [0.5], [0.5], value_range="type")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kind.convert(array)
    assert [f"up to {array.max()} ({array.dtype}) is read as" in str(one.message) for one in told] == [True] * dark
