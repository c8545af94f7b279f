"""MedMNIST's files as its authors publish them, and what is not one."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.medmnist import medmnist
from bigmodel.errors import DataError
from bigmodel.interfaces import LoaderOptions

SIZES = {"train": 6, "val": 3, "test": 4}


def contents(colours: tuple[int, ...] = (), times: int = 1, shape: tuple[int, int] = (5, 4)) -> dict[str, np.ndarray]:
    """`times` as many samples as in SIZES."""
    generator = np.random.default_rng(0)
    made = {}
    for split, few in SIZES.items():
        size = few * times
        made[f"{split}_images"] = generator.integers(0, 256, (size, *shape, *colours), dtype=np.uint8)
        made[f"{split}_labels"] = generator.integers(0, 2, (size, 1), dtype=np.uint8)
    return made


def read(path: Path | None, channels: int = 1, data_dir: Path = Path()):
    part = [0.5] * channels
    given = None if path is None else str(path)
    return medmnist("made", given, str(data_dir), ["no", "yes"], 2, (channels, 5, 4), part, part, ImageAugment())


@pytest.mark.parametrize(("channels", "colours"), [(1, ()), (3, (3,))])
def test_the_official_splits_are_read(tmp_path: Path, channels: int, colours: tuple[int, ...]) -> None:
    made = contents(colours)
    (tmp_path / "medmnist").mkdir()
    np.savez_compressed(tmp_path / "medmnist" / "made.npz", **made)
    dataset = read(None, channels, tmp_path)
    data = dataset.loader(LoaderOptions(torch.device("cpu"), 2, 0))
    assert data.splits == SIZES
    for split in ("val", "test"):
        batches = list(data.eval_batches(split))
        expected = made[f"{split}_images"].reshape(-1, 5, 4, channels).transpose(0, 3, 1, 2) / 255 * 2 - 1
        assert np.allclose(torch.cat([batch.inputs for batch in batches]).numpy(), expected, atol=1e-6)
        assert torch.cat([batch.targets for batch in batches]).tolist() == made[f"{split}_labels"][:, 0].tolist()


class _Attack:
    def __reduce__(self):
        return Path("executed").touch, ()


def _bomb(file: Path) -> None:
    """A header that promises more than there is."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train_images.npy", header.getvalue() + b"0" * 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_images": np.array([_Attack()], dtype=object)}, "holds object values"),
        ({"val_images": np.zeros((3, 5, 4), np.float32)}, "holds float32 values"),
        ({"val_labels": np.zeros((3, 14), np.uint8)}, "one label each"),
        ({"test_images": np.zeros((0, 5, 4), np.uint8), "test_labels": np.zeros((0, 1), np.uint8)}, "one label each"),
        ({"test_labels": np.full((4, 1), 2, np.uint8)}, "image 0 has label 2, outside of 0 to 1"),
        ({"val_images": None}, "no item named 'val_images.npy'"),
        (b"not an archive", "is not a zip file"),
        (_bomb, "cannot reshape array of size 10"),
        (None, "cannot be read as"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, change, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "made.npz"
    if isinstance(change, dict):
        np.savez(file, **{name: array for name, array in (contents() | change).items() if array is not None})
    elif isinstance(change, bytes):
        file.write_bytes(change)
    elif change is not None:
        change(file)
    with pytest.raises(DataError, match=words):
        read(file)
    assert not (tmp_path / "executed").exists()


def test_where_it_was_looked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no 'made\.npz' in {tmp_path}, .* get it from https://zenodo\.org"):
        read(None, data_dir=tmp_path)
