"""What the folders of a stranger's data set are taken for: splits, classes, pictures, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigmodel.datasets.audio.audio_folder import audio_folder
from bigmodel.datasets.audio.mel import LogMel
from bigmodel.datasets.audio.spec_augment import SpecAugment
from bigmodel.datasets.audio.wav import write_wav
from bigmodel.datasets.files.folder_walk import walk_files
from bigmodel.datasets.files.split_names import split_named
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.image_folder import image_folder
from bigmodel.errors import DataError
from bigmodel.inference.processors.images import ImageClassificationProcessor
from conftest import Answer

RANDOM = np.random.default_rng(0)
TINY_DATA = ("dataset=image_folder", "dataset.input_shape=[3,8,8]", "batch_size=4")


def picture(path: Path, form: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), np.uint8)).save(path, form)
    return path


def tree(root: Path, *folders: str, each: int = 6) -> Path:
    for folder in folders:
        for number in range(each):
            picture(root / folder / f"{number}.png")
    return root


def opened(root: Path, **settings: object) -> ImageDataset:
    plain = {
        "input_shape": (3, 8, 8),
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "val_fraction": 0.25,
        "augment": ImageAugment(),
    }
    return image_folder(str(root), **{**plain, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        *(("Training", "Testing"), ("Train", "Test"), ("train", "valid", "test"), ("training_set", "test_set")),
        *(("training", "validation", "testing"), ("TRAIN", "Dev", "test_set")),
        *(("train", "eval", "test"), ("train", "val", "eval")),
    ],
)
def test_the_usual_names_of_splits_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    tree(tmp_path, *(f"{split}/{name}" for split in names for name in ("cat", "dog")))
    data = opened(tmp_path)
    assert data.classes == ["cat", "dog"]
    splits = ("train", "val", "test") if len(names) == 3 else ("train", "test")
    assert list(data.sizes) == list(splits)
    assert data.sizes == dict.fromkeys(splits, 12)
    assert f"{splits[-1]}: 12 pictures: cat 6, dog 6" in data.notes


def test_every_usual_name_is_known() -> None:
    for name, split in {
        "Validation": "val",
        "DEV": "val",
        "Testing": "test",
        "train-set": "train",
        "trainer": None,
    }.items():
        assert split_named(name) == split


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train/a", "Training/a"), r"holds Training/ and train/, and both name the train split"),
        (("train/a", "val/a", "valid/a"), r"holds val/ and valid/, and both name the val split"),
        (("train/a", "train/b", "eval/a"), r"eval may be validation or test; rename it"),
        (("test/a", "val/a"), r"holds test, val and no train"),
        (("a", "b", "test/a"), r"test looks like a split and lies next to the classes a; move these into train/"),
        (("cat/train", "cat/test", "dog/train", "dog/test"), r"cat holds splits; they go above the classes"),
        (("data/train/a", "data/test/a"), r"holds only data/, which holds splits; set dataset.root=.*/data"),
        (("data/a", "data/b"), r"holds only data/, which holds a, b; set dataset.root=.*/data"),
        (("train/a", "train/b", "test"), r"test: holds no class folders"),
        (("seg_train/a", "seg_train/b", "seg_test/a"), r"holds seg_test, seg_train, which look like splits; name them"),
        (("train2017/a", "val2017/a"), r"look like splits"),
        (("myTrain/a", "myTest/a"), r"look like splits"),
    ],
)
def test_what_is_ambiguous_is_refused_in_a_line(folders: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        opened(tree(tmp_path, *folders))
    assert len(caught.value.lines) == 1


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    data = opened(tree(tmp_path, "train", "car"))
    assert data.classes == ["car", "train"]
    assert "warning: train/ is taken for a class, not for the train split" in data.notes


def test_classes_that_hold_the_same_folders_are_warned_of(tmp_path: Path) -> None:
    data = opened(tree(tmp_path, *(f"fold{n}/{name}" for n in (1, 2) for name in ("cat", "dog"))))
    assert any(
        note.startswith("warning: fold1, fold2 are taken for classes, and each holds cat, dog") for note in data.notes
    )
    assert not any(
        "taken for" in note for note in opened(tree(tmp_path / "b", "cat/day", "cat/night", "dog/day")).notes
    )


def test_files_of_several_splits_or_classes_are_warned_of(tmp_path: Path) -> None:
    root = tree(tmp_path, "train/cat", "train/dog")
    (root / "test").symlink_to("train")
    assert any(note.startswith("warning: 12 files in test and train at once, as ") for note in opened(root).notes)
    (root / "train" / "bird").symlink_to("dog")
    assert any(note.startswith("warning: 6 files with several classes, as ") for note in opened(root).notes)


def test_siblings_that_are_not_used_are_named(tmp_path: Path) -> None:
    data = opened(tree(tmp_path, "train/a", "train/b", "test/a", "unsorted/x", "more"))
    assert "not used: more/, unsorted/, next to the splits" in data.notes
    assert "warning: test has no pictures of b" in data.notes


def test_small_classes_are_warned_of_and_many_are_summed_up(tmp_path: Path) -> None:
    data = opened(tree(tree(tmp_path, "big"), "rare", each=2))
    assert "warning: fewer than 5 training pictures: rare 2" in data.notes
    alike = opened(tree(tmp_path / "alike", "cat", "Cat", "dog"))
    assert "warning: these are separate classes: 'Cat' and 'cat'" in alike.notes
    many = opened(tree(tmp_path / "many", *(f"class{n}" for n in range(13))))
    assert any(note.startswith("train: 78 pictures in 13 classes of 6 to 6; the smallest: ") for note in many.notes)


def test_sounds_are_found_by_the_same_rules(tmp_path: Path) -> None:
    import torch

    for name in ("Training/bark/a", "Training/meow/c", "Testing/meow/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_wav(tmp_path / f"{name}.wav", torch.sin(torch.arange(2000) / 5), 8000)
    data = audio_folder(str(tmp_path), 12, LogMel(8000, 256, 100, 8, 20.0, 4000.0), 0.0, SpecAugment())
    assert (data.spec["classes"], set(data.splits)) == (["bark", "meow"], {"train", "test"})
    assert "test: 1 sound file: bark 0, meow 1" in data.notes


def test_every_suffix_that_pillow_reads_counts_and_the_rest_is_told(tmp_path: Path) -> None:
    cat = tree(tmp_path, "cat", "dog") / "cat"
    for name, form in (("a.jfif", "JPEG"), ("b.JPE", "JPEG"), ("C.PNG", "PNG"), ("none", "PNG"), ("d.Tiff", "TIFF")):
        picture(cat / name, form)
    for name in ("x.heic", "y.HEIC", "readme.txt", "Thumbs.db", "notes"):
        (cat / name).write_bytes(b"no picture")
    for folder in ("@eaDir", ".thumbs", "__MACOSX"):
        picture(cat / folder / "0.png")
    picture(tmp_path / ".ipynb_checkpoints" / "0.png")
    (tmp_path / "labels.csv").write_text("a,b\n")
    data = opened(tmp_path)
    assert data.sizes == {"train": 12 + 5}
    (line,) = [note for note in data.notes if "passed over" in note]
    assert line.startswith("10 files passed over: 5 hidden, 2 .heic")
    for kind in ("1 .txt", "1 without a suffix", "1 outside of the class folders"):
        assert kind in line


def test_links_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    cat = tree(tmp_path / "data", "cat", "dog") / "cat"
    tree(tmp_path / "elsewhere", "more", each=3)
    (cat / "linked").symlink_to(tmp_path / "elsewhere")
    (cat / "again").symlink_to(tmp_path / "elsewhere" / "more")
    (cat / "self").symlink_to(".")
    (cat / "up").symlink_to("../..")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    (cat / "one.png").symlink_to("0.png")
    data = opened(tmp_path / "data")
    assert data.sizes == {"train": 12 + 3 + 1}


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tree(tmp_path, "cat", "dog") / "cat" / "pipe.png")
    data = opened(tmp_path)
    assert data.sizes == {"train": 12}
    assert "1 file passed over: no regular file" in data.notes


def test_prediction_takes_the_files_that_training_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cat = tree(tmp_path, "cat", "dog") / "cat"
    picture(cat / ".hidden" / "1.png")
    picture(cat / "@eaDir" / "1.png")
    picture(cat / "b.JPE", "JPEG")
    picture(cat / "none", "PNG")
    (cat / "x.heic").write_bytes(b"")
    paths = opened(tmp_path).sources["train"]().paths  # type: ignore[attr-defined]
    found = ImageClassificationProcessor(["a", "b"], (3, 8, 8), [0.5] * 3, [0.5] * 3).list_inputs(str(tmp_path))
    assert sorted(found) == sorted(paths)
    assert "warning: " in (said := capsys.readouterr().err)
    assert "3 files passed over: 2 hidden, 1 .heic" in said


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    from collections import Counter

    with pytest.raises(DataError, match=r"gone: cannot be read: No such file"):
        list(walk_files(tmp_path / "gone", {".png"}, Counter()))


def broken(root: Path) -> Path:
    tree(root, "train/cat", "train/dog", "test/cat", "test/dog")
    jpeg = picture(root / "train" / "cat" / "cut.jpg")
    jpeg.write_bytes(jpeg.read_bytes()[:-20])
    png = root / "test" / "dog" / "3.png"
    png.write_bytes(png.read_bytes()[:-30] + b"\0" * 30)
    (root / "test" / "cat" / "empty.png").write_bytes(b"")
    (root / "train" / "dog" / "nowhere.png").symlink_to("gone.png")
    return root


def test_all_broken_pictures_are_listed_before_anything_begins(tmp_path: Path, cli) -> None:
    root = broken(tmp_path / "data")
    answer: Answer = cli(*TINY_DATA, f"dataset.root={root}", "model=mlp", "device=cpu")
    assert answer.code == 3
    assert not (answer.cwd / "outputs").exists()
    lines = answer.err.splitlines()
    assert len(lines) == 5
    for part in (
        "cut.jpg: not a readable picture",
        "3.png: not",
        "empty.png: is empty",
        "nowhere.png: a link to no file",
    ):
        assert part in answer.err
    assert lines[-1] == "error: 4 broken pictures; mend or remove them, or set dataset.broken=skip"


def test_broken_pictures_can_be_skipped_and_are_then_told(tmp_path: Path) -> None:
    root = broken(tmp_path)
    data = opened(root, broken="skip")
    assert data.sizes == {"train": 12, "test": 11}
    assert "warning: 4 broken pictures skipped" in data.notes
    assert sum(note.startswith("skipped: ") for note in data.notes) == 4
    data.sources["test"]().pixels()
    before = data.fingerprint
    for name in ("train/cat/cut.jpg", "test/dog/3.png", "test/cat/empty.png", "train/dog/nowhere.png"):
        (root / name).unlink()
    assert opened(root).fingerprint != before  # what was skipped is part of it


def test_a_picture_that_only_decoding_shows_broken_is_skipped_as_well(tmp_path: Path) -> None:
    tree(tmp_path, "cat", "dog")
    path = tmp_path / "cat" / "0.bmp"
    picture(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"0.bmp: not a readable picture"):
        opened(tmp_path)
    assert opened(tmp_path, broken="skip").sizes == {"train": 12}


def test_the_plan_says_what_the_run_says(tmp_path: Path, cli) -> None:
    tree(tmp_path / "data", "Training/cat", "Training/dog", "Testing/cat", "Testing/dog")
    words = (*TINY_DATA, f"dataset.root={tmp_path / 'data'}", "model=mlp", "model.hidden=[4]", "device=cpu", "epochs=1")
    lines = ("Testing/ is the test split", "train: 12 pictures: cat 6, dog 6", "test: 12 pictures: cat 6, dog 6")
    plan: Answer = cli(*words, "dry_run=true")
    run: Answer = cli(*words)
    log = (run.run / "train.log").read_text()
    for line in lines:
        assert f"note  {line}\n" in plan.out
        assert f"{line}\n" in run.out
        assert f"{line}\n" in log


def test_each_class_keeps_a_picture_for_training(tmp_path: Path) -> None:
    tree(tree(tmp_path, "big", each=12), *(f"rare{n}" for n in range(8)), each=1)
    data = opened(tmp_path, test_fraction=0.4, val_fraction=0.0)
    assert sum(data.sizes.values()) == 20
    assert not any("train has no pictures" in note for note in data.notes)
    assert any("stays in training of each of the rarest classes: rare" in note for note in data.notes)
