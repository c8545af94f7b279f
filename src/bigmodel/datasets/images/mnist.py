"""MNIST (LeCun, Cortes & Burges) and Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 70,000 grey images of 28 x 28 pixels.

Both come as IDX files: a big-endian header of a magic number and the dimensions, then one byte a value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigmodel.constraints import Positive, PositiveInt, ProperFraction
from bigmodel.datasets.files.archive import open_maybe_gzipped
from bigmodel.datasets.files.download import ensure_file
from bigmodel.datasets.files.locations import candidate_paths
from bigmodel.datasets.files.published import PublishedFile, check_size, fingerprint_files
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.picture_files import check_labels, check_shape
from bigmodel.datasets.images.source import InMemoryImages
from bigmodel.errors import DataError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Set:
    """Names and address of a published set; files: images and labels of the training split, then of the test split."""

    url: str
    folders: Sequence[str]  # below data_dir; the first is where downloads go
    files: Sequence[PublishedFile]
    gzip_md5: Sequence[str]
    classes: Sequence[str]


def mnist(
    data_dir: str,
    download: bool,
    mirror: str | None,
    num_classes: PositiveInt | None,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: ProperFraction,
    augment: ImageAugment,
) -> ImageDataset:
    """Images (1, 28, 28); ten digits.

    Raises:
        DataError: the files are missing or damaged, or cannot be downloaded.
    """
    check_shape(input_shape, (1, 28, 28))
    data = _open(_MNIST, Path(data_dir), download, mirror)
    return ImageDataset(
        input_shape=input_shape, mean=mean, std=std, val_fraction=val_fraction, augment=augment, **data
    ).verify(num_classes)


def fashion_mnist(
    data_dir: str,
    download: bool,
    mirror: str | None,
    num_classes: PositiveInt | None,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: ProperFraction,
    augment: ImageAugment,
) -> ImageDataset:
    """Images (1, 28, 28); ten kinds of clothing.

    Raises:
        DataError: the files are missing or damaged, or cannot be downloaded.
    """
    check_shape(input_shape, (1, 28, 28))
    data = _open(_FASHION, Path(data_dir), download, mirror)
    return ImageDataset(
        input_shape=input_shape, mean=mean, std=std, val_fraction=val_fraction, augment=augment, **data
    ).verify(num_classes)


def _open(known: _Set, data_dir: Path, download: bool, mirror: str | None) -> Mapping[str, Any]:
    paths = _find_files(known, data_dir, download, mirror)
    sources = {}
    sizes = {}
    for split, first in (("train", 0), ("test", 2)):
        images, labels = paths[first : first + 2]
        images_shape = _shape(images, 3)
        labels_shape = _shape(labels, 1)
        if images_shape[1:] != (28, 28):
            raise DataError(f"{images}: images of {images_shape[1]}x{images_shape[2]} pixels, not 28x28")
        if images_shape[0] != labels_shape[0]:
            raise DataError(f"{images} holds {images_shape[0]} images, but {labels.name} {labels_shape[0]} labels")
        sizes[split] = images_shape[0]
        sources[split] = partial(_read, known.files[first : first + 2], images, labels, sizes[split])
    return {
        "classes": known.classes,
        "sources": sources,
        "sizes": sizes,
        "fingerprint": fingerprint_files((f"{known.folders[0]}/{split}", size) for split, size in sizes.items()),
    }


def _find_files(known: _Set, data_dir: Path, download: bool, mirror: str | None) -> list[Path]:
    """Find the four files, plain or gzipped, in one folder; missing ones are downloaded."""
    folders = candidate_paths(data_dir, known.folders)
    folder = max(folders, key=lambda folder: sum(file.find(folder) is not None for file in known.files))
    sought = " or ".join(map(str, folders))
    for file, md5 in zip(known.files, known.gzip_md5, strict=True):
        if file.find(folder) is None:
            target = folder / f"{file.name}.gz"
            ensure_file(known.url + target.name, target, md5, download, mirror, f"{file.name} (or .gz) in {sought}")
    return [path for file in known.files if (path := file.find(folder))]


def _shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Read the dimensions from the header, and check them against the file's size."""
    header_bytes = 4 + 4 * dimensions
    with open_maybe_gzipped(path) as file:
        header = file.read(header_bytes)
    magic = bytes((0, 0, 8, dimensions))
    if len(header) < header_bytes or header[:4] != magic:
        raise DataError(f"{path}: starts with {header[:4].hex()}, not with the IDX magic {magic.hex()}; get it again")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4")[1:])
    if 0 in shape:
        raise DataError(f"{path}: its header states an empty array, {shape}")
    check_size(path, header_bytes + math.prod(shape))
    return shape


def _read(files: Sequence[PublishedFile], images: Path, labels: Path, count: int) -> InMemoryImages:
    """Read a split as pixels (N, 1, 28, 28) and labels (N,)."""
    labels_N = _values(files[1], labels, (count,))
    check_labels(labels, labels_N.numpy(), 0, 10)
    return InMemoryImages(_values(files[0], images, (count, 28, 28)).unsqueeze(1), labels_N.long())


def _values(file: PublishedFile, path: Path, shape: tuple[int, ...]) -> Tensor:
    values = torch.empty(shape, dtype=torch.uint8)
    flat = values.view(-1).numpy()
    end = -(4 + 4 * len(shape))  # the header comes first
    for block in file.blocks(path, _BLOCK):
        first, end = end, end + len(block)
        if end > len(flat):
            break
        flat[max(first, 0) : max(end, 0)] = np.frombuffer(block, np.uint8)[max(-first, 0) :]
    if end != len(flat):
        raise DataError(f"{path}: holds {'more' if end > len(flat) else 'fewer'} than the {len(flat)} values it states")
    return values


def _idx(*md5s: str) -> list[PublishedFile]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    sizes = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)
    return [PublishedFile(*one) for one in zip(names, md5s, sizes, strict=True)]


_MNIST = _Set(
    "https://ossci-datasets.s3.amazonaws.com/mnist/",  # the authors' own site refuses automatic downloads
    ("mnist", "MNIST/raw"),
    _idx(
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    [str(digit) for digit in range(10)],
)
_FASHION = _Set(
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ("fashion_mnist", "FashionMNIST/raw"),
    _idx(
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
)
