"""Pictures from class folders and from CSV lists."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.csv_images import csv_images
from bigmodel.datasets.images.image_folder import image_folder
from bigmodel.datasets.images.picture_files import open_image
from bigmodel.errors import ConfigError, DataError
from bigmodel.interfaces import LoaderOptions

SETTINGS = {
    "input_shape": (3, 8, 8),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "val_fraction": 0.25,
    "augment": ImageAugment(flip=True),
}


def picture(path: Path, colour=(10, 20, 30), size=(12, 8), mode="RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def folders(root: Path, *splits: str, each: int = 4) -> Path:
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            for number in range(each):
                picture(root / split / name / f"{number}.png", (100 * label + number, 0, 0))
    return root


def test_one_folder_a_class(tmp_path):
    folders(tmp_path, "")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / ".hidden.png").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    data = image_folder(str(tmp_path), num_classes=2, **SETTINGS)
    assert (data.classes, data.sizes) == (["cat", "dog"], {"train": 8})
    source = pickle.loads(pickle.dumps(data.sources["train"]()))
    assert source.labels_N.tolist() == [0] * 4 + [1] * 4
    assert source.pixels().shape == (8, 3, 8, 8)
    assert source.pixels(torch.tensor([6, 1]))[:, 0, 0, 0].tolist() == [102, 1]


def test_folders_of_splits(tmp_path):
    folders(tmp_path, "train", "val", "test")
    data = image_folder(str(tmp_path), **SETTINGS)
    assert (data.classes, data.sizes) == (["cat", "dog"], {"train": 8, "val": 8, "test": 8})


def test_validation_pictures_are_decoded_once(tmp_path):
    folders(tmp_path, "train", "val", "test")
    data = image_folder(str(tmp_path), **SETTINGS).loader(LoaderOptions(torch.device("cpu"), 4, seed=0))
    first = [*data.eval_batches("val")]
    for file in (tmp_path / "val").rglob("*.png"):
        file.unlink()
    again = [*data.eval_batches("val")]
    assert all(one.inputs.equal(other.inputs) for one, other in zip(first, again, strict=True))


def test_held_out_pictures_are_known_by_their_files(tmp_path):
    folders(tmp_path, "train", "test")
    rows = [f"test/{name}/{number}.png,{name}" for name in ("cat", "dog") for number in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    made = [
        (image_folder(str(tmp_path), **SETTINGS), ("val", "test")),
        (csv_images(str(tmp_path / "list.csv"), "path", "label", **SETTINGS), ("val",)),
    ]
    for data, splits in made:
        loader = data.loader(LoaderOptions(torch.device("cpu"), 3, seed=0))
        for split in splits:
            files = [Path(file) for file in loader.eval_files(split)]
            labels = [int(label) for batch in loader.eval_batches(split) for label in batch.targets]
            reds = [
                float(pixels[0, 0, 0]) * 0.25 + 0.5 for batch in loader.eval_batches(split) for pixels in batch.inputs
            ]
            assert [data.classes[label] for label in labels] == [file.parent.name for file in files]
            assert [round(255 * red) % 100 for red in reds] == [int(file.stem) for file in files]


def test_a_test_split_is_cut_off_once_and_read_while_evaluating(tmp_path):
    folders(tmp_path, "")
    data = image_folder(str(tmp_path), test_fraction=0.25, **SETTINGS)
    again = image_folder(str(tmp_path), test_fraction=0.25, **SETTINGS)
    assert data.sizes == {"train": 6, "test": 2}
    paths = [data.sources[split]().paths for split in ("train", "test")]
    assert paths == [again.sources[split]().paths for split in ("train", "test")]
    assert len({*paths[0], *paths[1]}) == 8
    with torch.inference_mode():
        test = data.sources["test"]()
        colours = test.pixels()[:, 0, 0, 0].tolist()
    assert [colour // 100 for colour in colours] == test.labels_N.tolist()
    folders(tmp_path / "cut", "train", "test")
    assert image_folder(str(tmp_path / "cut"), test_fraction=0.25, **SETTINGS).sizes == {"train": 8, "test": 8}


def test_the_fingerprint_follows_the_files(tmp_path):
    folders(tmp_path, "")
    before = image_folder(str(tmp_path), **SETTINGS).fingerprint
    assert image_folder(str(tmp_path), **SETTINGS).fingerprint == before
    picture(tmp_path / "dog" / "more.png")
    assert image_folder(str(tmp_path), **SETTINGS).fingerprint != before


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(DataError, match=r"dataset.root: no folder .*nowhere"):
        image_folder(str(tmp_path / "nowhere"), **SETTINGS)
    with pytest.raises(DataError, match="holds no class folders"):
        image_folder(str(tmp_path), **SETTINGS)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"cat: holds no pictures"):
        image_folder(str(tmp_path), **SETTINGS)


def test_a_class_unknown_in_training_is_named(tmp_path):
    folders(tmp_path, "train", "val")
    picture(tmp_path / "val" / "bird" / "0.png")
    with pytest.raises(DataError, match=r"val: the training data has no class bird"):
        image_folder(str(tmp_path), **SETTINGS)


def test_claims_are_held_against_the_data(tmp_path):
    folders(tmp_path, "")
    with pytest.raises(ConfigError, match="got 3, but the data has 2; leave it null"):
        image_folder(str(tmp_path), num_classes=3, **SETTINGS)
    with pytest.raises(ValueError, match="channels"):
        image_folder(str(tmp_path), **{**SETTINGS, "input_shape": (4, 8, 8)})


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "gone"])
def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, damage):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    content = {"empty": b"", "text": b"hello", "cut": path.read_bytes()[:3000], "gone": None}[damage]
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"photo.png: not a readable picture"):
        open_image(path, (3, 8, 8))


@pytest.mark.parametrize(
    ("mode", "colour"), [("L", 77), ("RGBA", (77, 77, 77, 255)), ("P", 0), ("1", 1), ("CMYK", (0, 0, 0, 178))]
)
def test_every_colour_mode_becomes_rgb_or_grey(tmp_path, mode, colour):
    path = picture(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), colour, mode=mode)
    for channels in (1, 3):
        pixels = open_image(path, (channels, 5, 7))
        assert (pixels.shape, pixels.dtype) == ((channels, 5, 7), torch.uint8)
        assert len(pixels.unique()) == 1


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((8, 8), 0x4000, np.uint16)).save(tmp_path / "deep.png")
    assert open_image(tmp_path / "deep.png", (1, 8, 8)).unique().tolist() == [0x40]


def test_the_shorter_side_fits_and_the_centre_is_cut_out(tmp_path):
    pixels_HWC = np.zeros((16, 64, 3), np.uint8)
    pixels_HWC[:, 24:40] = 255
    Image.fromarray(pixels_HWC).save(tmp_path / "wide.png")
    assert open_image(tmp_path / "wide.png", (3, 8, 8)).float().mean() > 240


def test_a_photo_is_turned_upright(tmp_path):
    pixels_HWC = np.zeros((8, 8, 3), np.uint8)
    pixels_HWC[:, :4] = 255  # left half white; turned by 90 degrees it is the upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels_HWC).save(tmp_path / "photo.png", exif=exif)
    assert open_image(tmp_path / "photo.png", (1, 8, 8))[0, :, 0].tolist() == [255] * 4 + [0] * 4


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_streamed_batches_equal_resident_ones_for_any_number_of_workers(tmp_path):
    data = image_folder(str(folders(tmp_path, "", each=6)), **SETTINGS)

    def batches(**how):
        made = data.loader(LoaderOptions(torch.device("cpu"), batch_size=4, seed=0, **how))
        return [*made.train_batches(0, 3), *made.eval_batches("val")]

    expected = batches()
    for workers in (0, 1, 2):
        for one, other in zip(batches(resident_bytes=0, workers=workers), expected, strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)


def listed(tmp_path: Path, *lines: str, header: str = "path,label,split") -> dict:
    for number in range(4):
        picture(tmp_path / "pictures" / f"{number}.png", (number, 0, 0))
    (tmp_path / "list.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    columns = {"image_column": "path", "label_column": "label", "split_column": "split"}
    return {"file": str(tmp_path / "list.csv"), "root": str(tmp_path / "pictures"), **columns, **SETTINGS}


def test_csv_rows_become_splits_and_classes_sort_as_numbers(tmp_path):
    rows = ("0.png,10,train", "1.png,9,train", "", '"2.png", 10 ,VAL', "3.png,9,test")
    data = csv_images(**listed(tmp_path, *rows))
    assert (data.classes, data.sizes) == (["9", "10"], {"train": 2, "val": 1, "test": 1})
    assert data.sources["train"]().labels_N.tolist() == [1, 0]
    assert data.sources["test"]().pixels()[0, 0, 0, 0] == 3


def test_without_root_and_split_paths_are_beside_the_csv(tmp_path):
    settings = listed(tmp_path, "pictures/0.png,b,x", "pictures/1.png,a,y") | {"root": None, "split_column": None}
    data = csv_images(**settings)
    assert (data.classes, data.sizes) == (["a", "b"], {"train": 2})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("9.png,a,train", r"list.csv:3: column 'path': no file .*pictures/9.png"),
        (",a,train", "list.csv:3: column 'path': empty"),
        ("1.png,,train", "list.csv:3: column 'label': empty"),
        ("1.png", "list.csv:3: column 'label': not there: the row ends after 1"),
        ("1.png,a,holdout", "list.csv:3: column 'split': 'holdout' is not one of train, val, test"),
        ("1.png,b,test", "list.csv:3: column 'label': no training row has the label 'b'"),
        ('"1.png,a,test', r"list.csv:3: not CSV"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(tmp_path, row, words):
    with pytest.raises(DataError, match=words):
        csv_images(**listed(tmp_path, "0.png,a,train", row))


def test_many_bad_rows_are_counted(tmp_path):
    with pytest.raises(DataError) as caught:
        csv_images(**listed(tmp_path, *["9.png,a,train"] * 12))
    assert len(caught.value.lines) == 6
    assert caught.value.lines[-1].endswith("7 more bad rows")


def test_a_bad_csv_is_named(tmp_path):
    with pytest.raises(DataError, match="needs one column 'label'; the columns are: path, class, split"):
        csv_images(**listed(tmp_path, header="path,class,split"))
    with pytest.raises(DataError, match="holds no training rows"):
        csv_images(**listed(tmp_path))
    settings = listed(tmp_path)
    with pytest.raises(DataError, match=r"none.csv cannot be read: No such file"):
        csv_images(**settings | {"file": str(tmp_path / "none.csv")})
    (tmp_path / "list.csv").write_bytes(b"path,label,split\n\xff\xfe,a,b\n")
    with pytest.raises(DataError, match=r"not text in UTF-8 \(line 2 holds .* set dataset.encoding=cp1252"):
        csv_images(**settings)


def test_the_real_flowers():
    root = Path(os.environ.get("BIGMODEL_DATA_DIR", "")) / "shared" / "images" / "flowers"
    if not os.environ.get("BIGMODEL_DATA_DIR") or not root.is_dir():
        pytest.skip("BIGMODEL_DATA_DIR holds no shared/images/flowers")
    data = image_folder(str(root), num_classes=5, **SETTINGS)
    assert data.sources["train"]().pixels(torch.arange(64)).shape == (64, 3, 8, 8)
