"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 colour images of 32 x 32 pixels, from the authors' own files.

Their binary files are read as well as their pickles; the pickles only under the published hash, and then by an
unpickler that can build arrays and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bigmodel.constraints import Positive, PositiveInt, ProperFraction
from bigmodel.datasets.files.archive import extract, load_numpy_pickle, open_maybe_gzipped, uncompressed_size
from bigmodel.datasets.files.download import ensure_file, file_hash
from bigmodel.datasets.files.locations import candidate_paths
from bigmodel.datasets.files.published import PublishedFile, fingerprint_files
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.picture_files import check_labels, check_shape
from bigmodel.datasets.images.source import InMemoryImages
from bigmodel.errors import DataError
from bigmodel.safe_files import read_bytes

_URL = "https://www.cs.toronto.edu/~kriz/"
_PIXELS = 3 * 32 * 32
_RECORDS_AT_ONCE = 1024


@dataclass(frozen=True)
class _Layout:
    """Published layout of a set. `label_bytes` precede an image, with the class last; 0 means pickles."""

    folder: str
    archive: PublishedFile
    train: Sequence[PublishedFile]
    test: Sequence[PublishedFile]
    names: str | None
    label_bytes: int

    def missing(self, folder: Path) -> list[str]:
        return [file.name for file in (*self.train, *self.test) if not file.find(folder)]


def cifar10(
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
    """Images (3, 32, 32); ten classes.

    Raises:
        DataError: the files are missing, incomplete or damaged, or cannot be downloaded.
    """
    check_shape(input_shape, (3, 32, 32))
    data = _open(_CIFAR10, _CLASSES10, Path(data_dir), download, mirror)
    return ImageDataset(
        input_shape=input_shape, mean=mean, std=std, val_fraction=val_fraction, augment=augment, **data
    ).verify(num_classes)


def cifar100(
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
    """Images (3, 32, 32); a hundred classes, the fine labels.

    Raises:
        DataError: the files are missing, incomplete or damaged, or cannot be downloaded.
    """
    check_shape(input_shape, (3, 32, 32))
    data = _open(_CIFAR100, _CLASSES100, Path(data_dir), download, mirror)
    return ImageDataset(
        input_shape=input_shape, mean=mean, std=std, val_fraction=val_fraction, augment=augment, **data
    ).verify(num_classes)


def _open(
    layouts: Sequence[_Layout], published_classes: str, data_dir: Path, download: bool, mirror: str | None
) -> Mapping[str, Any]:
    classes = published_classes.split()
    layout, folder = _find(layouts, data_dir.expanduser().absolute(), download, mirror)
    if layout.names is not None and (folder / layout.names).is_file():
        lines = read_bytes(folder / layout.names).decode("utf-8", "replace").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    paths = {
        split: [(file, path) for file in files if (path := file.find(folder))]
        for split, files in (("train", layout.train), ("test", layout.test))
    }
    counts = {split: [_count(layout, file, path) for file, path in found] for split, found in paths.items()}
    return {
        "classes": classes,
        "sources": {
            split: partial(_read, layout, found, counts[split], len(classes)) for split, found in paths.items()
        },
        "sizes": {split: sum(each) for split, each in counts.items()},
        "fingerprint": fingerprint_files(
            (file.name, count)
            for split, found in paths.items()
            for (file, _), count in zip(found, counts[split], strict=True)
        ),
    }


def _find(layouts: Sequence[_Layout], data_dir: Path, download: bool, mirror: str | None) -> tuple[_Layout, Path]:
    """Find a layout that is there and its folder; unpack or download it if needed."""
    below = sorted(entry.name for entry in data_dir.glob("*/") if not entry.name.startswith("."))
    by_name = {layout.folder: layout for layout in layouts}
    folders = [(by_name[place.name], place) for place in candidate_paths(data_dir, [*by_name], below)]
    incomplete = []
    for layout, folder in folders:
        missing = layout.missing(folder)
        if not missing:
            return layout, folder
        if folder.is_dir():
            incomplete.append(f"{folder}: lacks {', '.join(missing)}; complete the folder or delete it")
    if incomplete:
        raise DataError(*incomplete)
    for layout, folder in folders:
        archive = folder.with_name(layout.archive.name)
        if archive.is_file():
            return _unpack(layout, archive)
    first = layouts[0]
    wanted = ", ".join(f"{layout.folder}/ or {layout.archive.name}" for layout in layouts)
    archive = data_dir / first.archive.name
    assert first.archive.md5 is not None
    ensure_file(_URL + archive.name, archive, first.archive.md5, download, mirror, f"{wanted} in {data_dir}")
    return _unpack(first, archive)


def _unpack(layout: _Layout, archive: Path) -> tuple[_Layout, Path]:
    if archive.stat().st_size == layout.archive.size and file_hash(archive, "md5") != layout.archive.md5:
        raise DataError(f"{archive}: damaged: its md5 is not the published {layout.archive.md5}; get it again")
    folder = archive.with_name(layout.folder)
    extract(archive, folder)
    missing = layout.missing(folder)
    if missing:
        raise DataError(f"{archive}: lacks {', '.join(missing)}; delete it and {folder}, and get it again")
    return layout, folder


def _count(layout: _Layout, file: PublishedFile, path: Path) -> int:
    """Return the number of images in a file, by its size."""
    if not layout.label_bytes:
        return _PICKLED[file.name]
    size = uncompressed_size(path)
    record = layout.label_bytes + _PIXELS
    if size == 0 or size % record:
        raise DataError(f"{path}: {size} bytes are not a whole number of {record}-byte records; get it again")
    return size // record


def _read(
    layout: _Layout, found: Sequence[tuple[PublishedFile, Path]], counts: Sequence[int], num_classes: int
) -> InMemoryImages:
    """Read a split as pixels (N, 3, 32, 32) and labels (N,), in place: no file is in memory next to its copy."""
    pixels_NCHW = torch.empty((sum(counts), 3, 32, 32), dtype=torch.uint8)
    labels_N = torch.empty(sum(counts), dtype=torch.int64)
    start = 0
    for (file, path), count in zip(found, counts, strict=True):
        end = start
        parts = _records(layout, file, path) if layout.label_bytes else _read_pickle(file, path)
        for pixels, labels in parts:
            first, end = end, end + len(labels)
            if end > start + count or len(pixels) != len(labels):
                raise DataError(f"{path}: holds more images than its {count}; get it again")
            check_labels(path, labels, first - start, num_classes)
            pixels_NCHW.numpy()[first:end] = pixels.reshape(-1, 3, 32, 32)
            labels_N.numpy()[first:end] = labels
        if end != start + count:
            raise DataError(f"{path}: holds {end - start} images, not {count}; get it again")
        start = end
    return InMemoryImages(pixels_NCHW, labels_N)


def _records(layout: _Layout, file: PublishedFile, path: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    record = layout.label_bytes + _PIXELS
    for block in file.blocks(path, record * _RECORDS_AT_ONCE):
        if len(block) % record:
            raise DataError(f"{path}: ends inside a record of {record} bytes; get it again")
        rows = np.frombuffer(block, np.uint8).reshape(-1, record)
        yield rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1]


def _read_pickle(file: PublishedFile, path: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    file.verify(path)
    with open_maybe_gzipped(path) as stream:
        batch = load_numpy_pickle(stream, path)
        try:
            pixels = batch[b"data"]
            labels = batch.get(b"fine_labels", batch.get(b"labels"))
            yield pixels.reshape(-1, _PIXELS), np.asarray(labels, np.int64).reshape(-1)
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a batch of CIFAR images: {error}") from error


def _batches(suffix: str, hashes: str) -> list[PublishedFile]:
    size = 10_000 * (1 + _PIXELS) if suffix else None
    return [PublishedFile(f"data_batch_{i}{suffix}", md5, size) for i, md5 in enumerate(hashes.split(), 1)]


_PICKLED = {f"data_batch_{i}": 10_000 for i in range(1, 6)} | {"test_batch": 10_000, "train": 50_000, "test": 10_000}

_CIFAR10 = (
    _Layout(
        "cifar-10-batches-bin",
        PublishedFile("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171),
        _batches(
            ".bin",
            "5dd7e06a14cb22eb9f671a540d1b7c25 5ea93a67294ea407fff1d09f752e9692 942cd6a4bcdd0dd3c604fbe906cb4421 "
            "ae636b3ba5c66a11e91e8cb52e771fcb 53f37980c15c3d472c316c40844f3f0d",
        ),
        [PublishedFile("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d", 10_000 * (1 + _PIXELS))],
        "batches.meta.txt",
        label_bytes=1,
    ),
    _Layout(
        "cifar-10-batches-py",
        PublishedFile("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", 170_498_071),
        _batches(
            "",
            "c99cafc152244af753f735de768cd75f d4bba439e000b95fd0a9bffe97cbabec 54ebc095f3ab1f0389bbae665268c751 "
            "634d18415352ddfa80567beed471001a 482c414d41f54cd18b22e5b47cb7c3cb",
        ),
        [PublishedFile("test_batch", "40351d587109b95175f43aff81a1287e")],
        None,
        label_bytes=0,
    ),
)

_CIFAR100 = (
    _Layout(
        "cifar-100-binary",
        PublishedFile("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168_513_733),
        [PublishedFile("train.bin", None, 50_000 * (2 + _PIXELS))],
        [PublishedFile("test.bin", None, 10_000 * (2 + _PIXELS))],
        "fine_label_names.txt",
        label_bytes=2,
    ),
    _Layout(
        "cifar-100-python",
        PublishedFile("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437),
        [PublishedFile("train", "16019d7e3df5f24257cddd939b257f8d")],
        [PublishedFile("test", "f0ef6b0ae62326f3e7ffdfab6717acfc")],
        None,
        label_bytes=0,
    ),
)

_CLASSES10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CLASSES100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""
