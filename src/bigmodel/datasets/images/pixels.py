"""Convert decoded pictures to 8-bit grey or RGB: deep values, transparency and palettes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["AS_BEFORE", "PixelRules", "is_deep"]

_COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0)}
_SIXTEEN_BITS = 65535
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # tags of TIFF

Background = Literal["white", "black"] | Sequence[int] | None
ValueRange = Literal["type"] | Sequence[float] | None


def is_deep(mode: str) -> bool:
    """Return whether a picture of this mode of Pillow's has one channel of more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


@dataclass(frozen=True)
class PixelRules:
    """Rules by which pixels are read. The defaults are those of older runs.

    These take the upper 8 of 16 bits, cut other deep values off at 255, and drop transparency, so hidden colors show.

    `value_range`: the values of deep pictures that become black and white, [low, high], or "type": all that their type
    holds (0 to 1 for floats). `background`: what shows behind transparent pixels, a name or [red, green, blue].

    Raises:
        ValueError: the range is empty, or the colour none.
    """

    value_range: ValueRange = None
    background: Background = None

    def __post_init__(self) -> None:
        if isinstance(self.value_range, (list, tuple)) and (
            len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]
        ):
            raise ValueError(f"value_range: must be [low, high], low below high, not {list(self.value_range)}")
        if isinstance(self.background, (list, tuple)) and (
            len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background)
        ):
            raise ValueError(f"background: must be three numbers from 0 to 255, not {list(self.background)}")

    def about(self) -> dict[str, Any]:
        """Return the rules as JSON for a checkpoint, so that prediction reads pictures in the same way."""
        chosen = {"value_range": self.value_range, "background": self.background}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in chosen.items() if v is not None}

    def converted(self, image: Image.Image, channels: int, opened: Image.Image | None = None) -> Image.Image:
        """Convert the picture to mode L or RGB. `opened` is its original: a copy does not know its file's type.

        Raises:
            ValueError: it has several values, and all lie outside of `value_range`.
        """
        if is_deep(image.mode):
            image = self._bytes_of_deep(image, opened or image)
        elif self.background is not None and image.has_transparency_data:
            behind = Image.new("RGBA", image.size, (*self._colour, 255))
            image = Image.alpha_composite(behind, _with_alpha(image))
        return image.convert("L" if channels == 1 else "RGB")

    @property
    def _colour(self) -> tuple[int, int, int]:
        if isinstance(self.background, str):
            return _COLOURS[self.background]
        red, green, blue = self.background or (0, 0, 0)
        return red, green, blue

    def _bytes_of_deep(self, image: Image.Image, opened: Image.Image) -> Image.Image:
        if self.value_range is None:
            if image.mode.startswith("I;16"):
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            values = np.asarray(image)
            _refuse_one_level(np.clip(np.nan_to_num(values), 0, 255).astype(np.uint8), values, 0, 255)
            return image
        values = values_of(image, opened)
        low, high = _range_of_type(opened) if self.value_range == "type" else map(float, self.value_range)
        held = np.clip(np.nan_to_num(values, nan=low), low, high)
        levels = np.rint((held - low) * (255 / (high - low))).astype(np.uint8)
        _refuse_one_level(levels, values, low, high)
        hidden = image.info.get("transparency")
        if self.background is not None and isinstance(hidden, int):
            levels[values == hidden] = round(sum(self._colour) / 3)
        return Image.fromarray(levels)


def _refuse_one_level(levels: NDArray[Any], values: NDArray[Any], low: float, high: float) -> None:
    """Raise ValueError if a picture of several values would be read as one grey level, or as its two darkest."""
    values = values[~np.isnan(values)]
    if not values.size or values.min() == values.max():
        return
    fractions = values.max() <= 1 < high and bool((values % 1).any())  # a mask of 0 and 1 is warned of elsewhere
    if levels.min() == levels.max() or (levels.max() <= 1 and fractions):
        raise ValueError(
            f"its values, {values.min():g} to {values.max():g}, become one grey level in the value range "
            f"{low:g} to {high:g}; set dataset.value_range=[low,high] to the values of most pictures"
        )


AS_BEFORE = PixelRules()  # the rules of runs whose config has none


def values_of(image: Image.Image, opened: Image.Image | None = None) -> NDArray[Any]:
    """float64 (H, W) of a deep picture, a copy of `opened`."""
    values = np.asarray(image)
    if image.mode == "I" and _is_unsigned(opened or image):  # Pillow reads 32 bits as signed only
        values = values.astype(np.int32).view(np.uint32)
    return values.astype(np.float64)


def _is_unsigned(opened: Image.Image) -> bool:
    tags = getattr(opened, "tag_v2", {})
    return tuple(tags.get(_BITS_PER_SAMPLE, ())) == (32,) and tuple(tags.get(_SAMPLE_FORMAT, (1,))) == (1,)


def _range_of_type(image: Image.Image) -> tuple[float, float]:
    if image.mode == "F":
        return 0.0, 1.0
    if _is_unsigned(image):
        return 0.0, float(2**32 - 1)
    narrow = image.mode.startswith("I;16") or image.format in ("PPM", "PNG")  # Pillow has scaled these to 16 bits
    return 0.0, float(_SIXTEEN_BITS if narrow else 2**31 - 1)


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")
