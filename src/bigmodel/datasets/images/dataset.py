"""The dataset of images that leaves build: sources of pixels, classes, and preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.loader import ImageLoader
from bigmodel.datasets.images.picture_targets import Target
from bigmodel.datasets.images.pixels import AS_BEFORE, PixelRules
from bigmodel.datasets.images.source import ImageSource
from bigmodel.datasets.loading.claims import wrong_claims
from bigmodel.errors import ConfigError
from bigmodel.formatting import format_count
from bigmodel.interfaces import Batch, Loader, LoaderOptions


@dataclass(frozen=True)
class ImageDataset:
    """A `Dataset` of images as its leaf describes it. `sources` opens a split when it is first needed.

    Without a `val` source, `val_fraction` of the training samples is held out, the same for every seed. `rules` are
    those that files are read by, and `notes` lines about what was guessed or left out. With a `target` there are no
    classes, and the labels of a source are float32 (N, K). `files` are those of each source, where a sample is a file.
    """

    classes: Sequence[str]
    input_shape: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    val_fraction: float
    augment: ImageAugment
    sources: Mapping[str, Callable[[], ImageSource]]
    sizes: Mapping[str, int]
    fingerprint: str
    rules: PixelRules = AS_BEFORE
    notes: Sequence[str] = ()
    target: Target | None = None
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def properties(self) -> Mapping[str, Any]:
        count = len(self.classes)
        of_target = {"num_classes": count, "outputs": count} if self.target is None else self.target.properties
        properties = {**of_target, "input_shape": list(self.input_shape)}
        return properties | {key: value for key, value in self.rules.about().items() if key == "value_range"}

    @property
    def description(self) -> str:
        what = format_count(len(self.classes), "class", "classes") if self.target is None else self.target.description
        return f"{what}, {'x'.join(map(str, self.input_shape))}"

    @property
    def mixing(self) -> Sequence[str]:
        return self.augment.mixing

    def processor_spec(self) -> Mapping[str, Any]:
        classes = {
            "kind": "bigmodel.inference.processors.images.ImageClassificationProcessor",
            "classes": list(self.classes),
        }
        return {
            **(classes if self.target is None else self.target.processor_spec()),
            "input_shape": list(self.input_shape),
            "mean": list(self.mean),
            "std": list(self.std),
            **self.rules.about(),
        }

    def sample_batch(self, count: int) -> Batch:
        inputs = torch.rand(count, *self.input_shape, generator=torch.Generator().manual_seed(0))
        if self.target is None:
            return Batch(inputs, torch.zeros(count, dtype=torch.int64))
        return Batch(inputs, torch.zeros(count, self.target.properties["outputs"]))

    def loader(self, options: LoaderOptions) -> Loader:
        return ImageLoader(self, options)

    def verify(self, num_classes: int | None) -> ImageDataset:
        """Check the YAML's claims and the augmentation against the data.

        Raises:
            ConfigError: the number of classes or the shape is not the data's, or does not allow the augmentation.
        """
        claims = {"num_classes": num_classes} if self.target is None else {}
        problems = wrong_claims(claims, {"num_classes": len(self.classes)})
        channels = self.input_shape[0]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                problems.append(
                    f"dataset.{name}: needs {format_count(channels, 'value')}, one a channel, not {len(values)}"
                )
        problems += [f"dataset.augment.{line}" for line in self.augment.problems(self.input_shape, len(self.classes))]
        if problems:
            raise ConfigError(*problems)
        return self
