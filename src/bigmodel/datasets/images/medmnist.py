"""MedMNIST (Yang et al. 2023, 10.1038/s41597-022-01721-8): medical images of 28 x 28 pixels, in one .npz a set.

A file holds `{train,val,test}_images`, uint8 (N, H, W) or (N, H, W, 3), and `..._labels`, (N, 1): the authors' splits.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.datasets.files.locations import find_data
from bigmodel.datasets.files.published import fingerprint_files
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.picture_files import check_labels, check_shape
from bigmodel.datasets.images.source import InMemoryImages
from bigmodel.errors import DataError

__all__ = ["medmnist"]

_SPLITS = ("train", "val", "test")
_FOLDERS = ("medmnist", "medical")  # of data_dir
_HOW = "get it from https://zenodo.org/records/10519652 and put it there, or set dataset.path="
_MOST_BYTES = 8 << 30  # of one array; its size is stated by the file, which is not trusted


def medmnist(
    name: str,
    path: str | None,
    data_dir: str,
    classes: Sequence[str],
    num_classes: PositiveInt | None,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    augment: ImageAugment,
) -> ImageDataset:
    """Images with one label each, in the official splits; `path` is the file, else `name`.npz is looked for.

    Raises:
        DataError: there is no such file, or it is damaged or of another kind.
        ValueError: the images are of another shape than `input_shape`.
    """
    file = find_data(data_dir, f"{name}.npz", _FOLDERS, advice=_HOW) if path is None else Path(path)
    splits = _read(file, len(classes))
    check_shape(input_shape, tuple(splits["train"].pixels_NCHW.shape[1:]))
    return ImageDataset(
        classes=list(classes),
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=0.0,
        augment=augment,
        sources=splits,
        sizes={split: len(arrays.labels_N) for split, arrays in splits.items()},
        fingerprint=fingerprint_files([(name, file.stat().st_size)]),
    ).verify(num_classes)


def _read(file: Path, num_classes: int) -> dict[str, InMemoryImages]:
    try:
        with zipfile.ZipFile(file) as archive:
            arrays = {key: _array(archive, f"{key}.npy") for s in _SPLITS for key in (f"{s}_images", f"{s}_labels")}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{file.absolute()}: cannot be read as MedMNIST's .npz: {reason}; get it again") from error
    return {
        split: _arrays(file, arrays[f"{split}_images"], arrays[f"{split}_labels"], num_classes) for split in _SPLITS
    }


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[np.uint8]:
    """Read an array of bytes; a pickle is never opened."""
    size = archive.getinfo(name).file_size
    if size > _MOST_BYTES:
        raise ValueError(f"{name} unpacks to {size} bytes")
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, kind = read_header(stream)
        if kind != np.uint8 or by_column:
            raise ValueError(f"{name} holds {kind} values, not bytes row by row")
        values = np.frombuffer(stream.read(), np.uint8)
    return values.reshape(shape)


def _arrays(file: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8], num_classes: int) -> InMemoryImages:
    pixels = images[..., None] if images.ndim == 3 else images
    if pixels.ndim != 4 or not len(pixels) or labels.shape != (len(pixels), 1):
        shapes = f"images {images.shape} and labels {labels.shape}"
        raise DataError(f"{file.absolute()}: holds {shapes}; it needs grey or colour images with one label each")
    check_labels(file, labels[:, 0], 0, num_classes)
    pixels_NCHW = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    return InMemoryImages(pixels_NCHW, torch.from_numpy(labels[:, 0].astype(np.int64)))
