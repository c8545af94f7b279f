"""CIFAR files in every published form, sound and broken."""

import gzip
import hashlib
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigmodel.datasets.images import cifar
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.cifar import cifar10, cifar100
from bigmodel.errors import ConfigError, DataError
from bigmodel.interfaces import LoaderOptions

SETTINGS = {
    "download": False,
    "mirror": None,
    "num_classes": None,
    "input_shape": (3, 32, 32),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "val_fraction": 0.1,
    "augment": ImageAugment(flip=True, crop=4),
}


def records(count: int, seed: int = 0, classes: int = 10, coarse: bool = False) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(0, 256, (count, 3073 + coarse), np.uint8)
    rows[:, int(coarse)] = np.arange(count) % classes
    return rows


def binary10(parent: Path, each: int = 20) -> Path:
    folder = parent / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(records(each, number).tobytes())
    (folder / "test_batch.bin").write_bytes(records(each, 6).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    return folder


def test_binary_files_give_pixels_labels_and_classes(tmp_path):
    binary10(tmp_path)
    data = cifar10(data_dir=str(tmp_path), **SETTINGS)
    assert (data.sizes, data.classes) == ({"train": 100, "test": 20}, list("abcdefghij"))
    split = data.sources["train"]()
    rows = np.concatenate([records(20, number) for number in range(1, 6)])
    assert torch.equal(split.labels_N, torch.from_numpy(rows[:, 0].astype(np.int64)))
    assert torch.equal(split.pixels(), torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32)))


@pytest.mark.parametrize("where", [".", "nested", "cifar-10-batches-bin"])
def test_the_folder_is_found_below_and_at_data_dir(tmp_path, where):
    binary10(tmp_path / where if where == "nested" else tmp_path)
    data_dir = tmp_path / where if where != "nested" else tmp_path
    assert cifar10(data_dir=str(data_dir), **SETTINGS).sizes["train"] == 100


def test_gzipped_files_are_the_same_data(tmp_path):
    folder = binary10(tmp_path)
    plain = cifar10(data_dir=str(tmp_path), **SETTINGS)
    pixels = plain.sources["train"]().pixels()
    for path in folder.glob("*.bin"):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    zipped = cifar10(data_dir=str(tmp_path), **SETTINGS)
    assert (zipped.sizes, zipped.fingerprint) == (plain.sizes, plain.fingerprint)
    assert torch.equal(zipped.sources["train"]().pixels(), pixels)


def test_an_archive_is_unpacked_beside_itself(tmp_path):
    folder = binary10(tmp_path / "made" / "deep")
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    assert cifar10(data_dir=str(tmp_path), **SETTINGS).sizes == {"train": 100, "test": 20}
    assert (tmp_path / folder.name / "data_batch_1.bin").is_file()


def test_an_archive_cut_off_is_refused_and_leaves_nothing(tmp_path):
    folder = binary10(tmp_path / "made" / "deep")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: damaged or cut off"):
        cifar10(data_dir=str(tmp_path), **SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "made"]


def test_an_archive_without_the_batches_is_refused(tmp_path):
    folder = binary10(tmp_path / "made" / "deep")
    (folder / "test_batch.bin").unlink()
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    with pytest.raises(DataError, match=r"lacks test_batch.bin"):
        cifar10(data_dir=str(tmp_path), **SETTINGS)


def test_cifar100_takes_the_fine_label(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, count in (("train.bin", 120), ("test.bin", 10)):
        (folder / name).write_bytes(records(count, classes=100, coarse=True).tobytes())
    data = cifar100(data_dir=str(tmp_path), **SETTINGS)
    assert (len(data.classes), data.classes[-1]) == (100, "worm")
    assert data.sources["train"]().labels_N.tolist() == [n % 100 for n in range(120)]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


def pickled(monkeypatch, tmp_path, content: bytes) -> None:
    """cifar-100-python with this content as both files, under the hashes that are then the published ones."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir(exist_ok=True)
    layout = cifar._CIFAR100[1]
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    files = {}
    for split, name in (("train", "train"), ("test", "test")):
        (folder / name).write_bytes(content)
        files[split] = [replace(getattr(layout, split)[0], md5=md5)]
    monkeypatch.setattr(cifar, "_CIFAR100", (cifar._CIFAR100[0], replace(layout, **files)))
    monkeypatch.setattr(cifar, "_PICKLED", {"train": 100, "test": 100})


def test_pickles_are_read_under_their_hash(tmp_path, monkeypatch):
    rows = records(100, classes=100, coarse=True)
    # as Python 2 and an old numpy wrote them: texts as bytes, the old module names, a dtype with align=0
    array = (
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
            b"(I1\n(I100\nI3072\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n"
        )
        + b"T"
        + (100 * 3072).to_bytes(4, "little")
        + rows[:, 2:].tobytes()
        + b"tb"
    )
    labels = b"(" + b"".join(b"I%d\n" % label for label in rows[:, 1]) + b"l"
    pickled(monkeypatch, tmp_path, b"(S'data'\n" + array + b"S'fine_labels'\n" + labels + b"d.")
    split = cifar100(data_dir=str(tmp_path), **SETTINGS).sources["train"]()
    assert torch.equal(split.pixels(), torch.from_numpy(rows[:, 2:].reshape(-1, 3, 32, 32)))
    assert split.labels_N.tolist() == rows[:, 1].tolist()


def test_a_pickle_without_the_published_hash_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    data = cifar100(data_dir=str(tmp_path), **SETTINGS)
    with pytest.raises(DataError, match=r"cifar-100-python/train: damaged: its md5"):
        data.sources["train"]()
    assert not Path("hacked").exists()


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), pickle.dumps({b"data": 3}), pickle.dumps([1])[:-3], b"no"])
def test_a_pickle_of_anything_but_arrays_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    pickled(monkeypatch, tmp_path, content)
    with pytest.raises(DataError, match=r"cifar-100-python/train"):
        cifar100(data_dir=str(tmp_path), **SETTINGS).sources["train"]()
    assert not Path("hacked").exists()


def test_missing_data_says_what_where_and_how(tmp_path):
    with pytest.raises(DataError) as caught:
        cifar10(data_dir=str(tmp_path / "nowhere"), **SETTINGS)
    (line,) = caught.value.lines
    for part in ("cifar-10-batches-bin", str(tmp_path / "nowhere"), "https://www.cs.toronto.edu", "data_dir="):
        assert part in line
    assert "dataset.download=true" in line


def test_a_missing_batch_is_named(tmp_path):
    (binary10(tmp_path) / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"cifar-10-batches-bin: lacks data_batch_3.bin"):
        cifar10(data_dir=str(tmp_path), **SETTINGS)


@pytest.mark.parametrize("content", [b"", b"x" * 3072, b"\1" * 3073 * 2 + b"x"])
def test_a_truncated_batch_is_refused_at_once(tmp_path, content):
    (binary10(tmp_path) / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch.bin: \d+ bytes are not a whole number of 3073-byte records"):
        cifar10(data_dir=str(tmp_path), **SETTINGS)


def test_a_wrong_label_is_named(tmp_path):
    rows = records(20)
    rows[7, 0] = 10
    (binary10(tmp_path) / "data_batch_2.bin").write_bytes(rows.tobytes())
    data = cifar10(data_dir=str(tmp_path), **SETTINGS)
    with pytest.raises(DataError, match=r"data_batch_2.bin: image 7 has label 10, outside of 0 to 9"):
        data.sources["train"]()


def test_a_file_of_the_published_size_must_have_the_published_hash(tmp_path):
    path = binary10(tmp_path) / "test_batch.bin"
    path.write_bytes(bytes(10_000 * 3073))
    data = cifar10(data_dir=str(tmp_path), **SETTINGS)
    with pytest.raises(DataError, match=r"test_batch.bin: damaged: its md5"):
        data.sources["test"]()


def test_a_damaged_gzip_is_refused(tmp_path):
    path = binary10(tmp_path) / "test_batch.bin"
    path.with_name("test_batch.bin.gz").write_bytes(gzip.compress(path.read_bytes())[:-900])
    path.unlink()
    with pytest.raises(DataError, match=r"test_batch.bin.gz: damaged or cut off"):
        cifar10(data_dir=str(tmp_path), **SETTINGS)


def test_claims_are_held_against_the_data(tmp_path):
    binary10(tmp_path)
    with pytest.raises(ConfigError, match="got 7, but the data has 10; leave it null"):
        cifar10(data_dir=str(tmp_path), **{**SETTINGS, "num_classes": 7})
    with pytest.raises(ConfigError, match=r"got \[3, 28, 28\], but the data has \[3, 32, 32\]; leave it out"):
        cifar10(data_dir=str(tmp_path), **{**SETTINGS, "input_shape": (3, 28, 28)})


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_streamed_batches_equal_resident_ones_for_any_number_of_workers(tmp_path):
    binary10(tmp_path)
    data = cifar10(data_dir=str(tmp_path), **SETTINGS)

    def batches(**how):
        device = torch.device("cpu")
        return list(data.loader(LoaderOptions(device, batch_size=16, seed=3, **how)).train_batches(0, 7))

    expected = batches()
    for workers in (0, 1, 2):
        streamed = batches(resident_bytes=0, workers=workers)
        assert len(streamed) == len(expected) == 7
        for one, other in zip(streamed, expected, strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)


def test_the_real_cifar10():
    data_dir = os.environ.get("BIGMODEL_DATA_DIR", "")
    if not data_dir or not any(Path(data_dir).glob("cifar-10-*")):
        pytest.skip("BIGMODEL_DATA_DIR holds no CIFAR-10")
    data = cifar10(data_dir=data_dir, **SETTINGS)
    assert data.sizes == {"train": 50_000, "test": 10_000}
    assert data.classes[0] == "airplane"
    assert data.sources["test"]().labels_N.bincount().tolist() == [1000] * 10
