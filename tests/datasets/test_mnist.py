"""IDX files, plain and gzipped, sound and broken."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.mnist import fashion_mnist, mnist
from bigmodel.errors import DataError

SETTINGS = {
    "download": False,
    "mirror": None,
    "num_classes": 10,
    "input_shape": (1, 28, 28),
    "mean": (0.13,),
    "std": (0.31,),
    "val_fraction": 0.1,
    "augment": ImageAugment(),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
LABELS = (np.arange(30) % 10).astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("t10k", 10)):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(IMAGES[:count]))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(LABELS[:count]))
    return folder


@pytest.mark.parametrize(
    ("leaf", "folder"),
    [(mnist, "mnist"), (mnist, "MNIST/raw"), (fashion_mnist, "fashion_mnist"), (fashion_mnist, "FashionMNIST/raw")],
)
def test_files_are_found_and_read(tmp_path, leaf, folder):
    write(tmp_path / folder)
    for data_dir in (tmp_path, tmp_path / folder):
        data = leaf(data_dir=str(data_dir), **SETTINGS)
        assert data.sizes == {"train": 30, "test": 10}
        split = data.sources["train"]()
        assert torch.equal(split.pixels(), torch.from_numpy(IMAGES).unsqueeze(1))
        assert split.labels_N.tolist() == LABELS.tolist()


def test_gzipped_files_are_the_same_data(tmp_path):
    folder = write(tmp_path / "mnist")
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    data = mnist(data_dir=str(tmp_path), **SETTINGS)
    assert torch.equal(data.sources["test"]().pixels(), torch.from_numpy(IMAGES[:10]).unsqueeze(1))


def test_the_two_sets_differ_in_fingerprint_and_never_stand_in_for_each_other(tmp_path):
    write(tmp_path / "mnist")
    with pytest.raises(DataError, match="fashion_mnist"):
        fashion_mnist(data_dir=str(tmp_path / "mnist"), **SETTINGS)
    write(tmp_path / "fashion_mnist")
    one, other = (leaf(data_dir=str(tmp_path), **SETTINGS) for leaf in (mnist, fashion_mnist))
    assert one.fingerprint != other.fingerprint
    assert other.classes[9] == "Ankle boot"


def test_missing_data_says_what_where_and_how(tmp_path):
    folder = write(tmp_path / "mnist")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        mnist(data_dir=str(tmp_path), **SETTINGS)
    (line,) = caught.value.lines
    for part in ("t10k-labels-idx1-ubyte", str(folder), "https://", "data_dir=", "dataset.download=true"):
        assert part in line


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x0d\3" + idx(IMAGES)[4:], "not with the IDX magic 00000803"),
        ("train-images-idx3-ubyte", idx(LABELS), "IDX magic"),
        ("train-images-idx3-ubyte", b"", "IDX magic"),
        ("train-images-idx3-ubyte", idx(IMAGES)[:-1], "where its header promises"),
        ("train-images-idx3-ubyte", idx(IMAGES) + b"x", "where its header promises"),
        ("train-images-idx3-ubyte", idx(IMAGES[:, :27]), "images of 27x28 pixels, not 28x28"),
        ("train-images-idx3-ubyte", idx(IMAGES[:0]), "states an empty array"),
        ("train-labels-idx1-ubyte", idx(LABELS[:29]), "30 images, but train-labels-idx1-ubyte 29 labels"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\1\xff\xff\xff\xff", "where its header promises"),
    ],
)
def test_a_broken_file_is_refused_at_once(tmp_path, name, content, words):
    (write(tmp_path / "mnist") / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        mnist(data_dir=str(tmp_path), **SETTINGS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(idx(IMAGES))[:9000], "damaged or cut off"),
        (gzip.compress(idx(IMAGES)[:-1]), "holds fewer than"),
        (gzip.compress(idx(IMAGES) + b"x"), "holds more than"),
        (gzip.compress(struct.pack(">IIII", 0x803, 2**31, 28, 28)), "where its header promises"),
        (b"no gzip", "damaged or cut off"),
    ],
    ids=["cut", "short", "long", "absurd", "garbage"],  # a gzip file holds the time, which is no name for a test
)
def test_a_broken_gzip_is_refused(tmp_path, content, words):
    folder = write(tmp_path / "mnist")
    (folder / "train-images-idx3-ubyte").unlink()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=words):
        mnist(data_dir=str(tmp_path), **SETTINGS).sources["train"]()


def test_a_wrong_label_is_named(tmp_path):
    labels = LABELS.copy()
    labels[4] = 200
    (write(tmp_path / "mnist") / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DataError, match="image 4 has label 200, outside of 0 to 9"):
        mnist(data_dir=str(tmp_path), **SETTINGS).sources["train"]()


def test_a_file_of_the_published_size_must_have_the_published_hash(tmp_path):
    folder = write(tmp_path / "mnist")
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((10_000, 28, 28), np.uint8)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(10_000, np.uint8)))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: damaged: its md5"):
        mnist(data_dir=str(tmp_path), **SETTINGS).sources["test"]()


@pytest.mark.parametrize(("leaf", "folder"), [(mnist, "mnist"), (fashion_mnist, "fashion_mnist")])
def test_the_real_files(leaf, folder, tmp_path):
    found = Path(os.environ.get("BIGMODEL_DATA_DIR") or tmp_path) / folder
    if not found.is_dir():
        pytest.skip(f"BIGMODEL_DATA_DIR holds no {folder}")
    data = leaf(data_dir=str(found.parent), **SETTINGS)
    assert data.sizes == {"train": 60_000, "test": 10_000}
    assert len(data.sources["test"]().labels_N.bincount()) == 10
