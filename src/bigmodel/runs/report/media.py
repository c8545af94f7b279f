"""Samples on a page: pictures, texts, fields and sounds, all inside the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bigmodel.errors import DataError
from bigmodel.runs.report.html import escape

if TYPE_CHECKING:
    from torch import Tensor

    from bigmodel.inference.shown import Shown

_LONGEST_SIDE = 256  # pixels of a picture; larger ones are made smaller
_LOSSLESS_SIDE = 64  # pixels up to which a picture is a PNG
_LONGEST_SOUND_S = 6.0
_HIGHEST_RATE = 16_000  # hertz; sounds of more are resampled
_MAX_TEXT = 600  # letters of a sample
_BLUE = (64, 128, 230)
_MAX_FIELDS = 20


def card(
    shown: Shown | None = None,
    alt: str = "",
    facts: Sequence[tuple[str, str]] = (),
    file: str = "",
    marked: str = "",
    playing: str = "",
) -> str:
    """Return a sample with facts about it, names and values as texts.

    `file` is the sample's, and is played if it is a sound; `marked` is a text and `playing` a player as HTML.
    """
    parts = [playing]
    if shown is not None and shown.picture is not None:
        parts.append(picture(shown.picture, alt))
    if shown is not None and shown.text:
        parts.append(f"<blockquote>{escape(shown.text, _MAX_TEXT)}</blockquote>")
    if file:
        parts.append(sound(file))
    parts.append(_list(facts))
    if marked:
        parts.append(f"<blockquote>{marked}</blockquote>")
    if shown is not None and shown.fields:
        parts.append(_fields(shown.fields))
    return f'<div class="card">{"".join(parts)}</div>'


def cards(shown: Sequence[str], wide: bool = False) -> str:
    """Return cards side by side; `wide` for texts."""
    return f'<div class="cards{" wide" * wide}">{"".join(shown)}</div>' if shown else ""


def picture(pixels_CHW: Tensor, alt: str) -> str:
    """Return an `<img>` of uint8 pixels (C, H, W), C = 1 or 3."""
    from PIL import Image

    array = pixels_CHW.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    kind = "PNG" if max(image.size) <= _LOSSLESS_SIDE or image.mode == "L" else "JPEG"
    content = io.BytesIO()
    image.save(content, kind, quality=80)
    source = _data(content.getvalue(), f"image/{kind.lower()}")
    return f'<img alt="{escape(alt, 200)}" width="{image.width}" src="{source}">'


def opacity_picture(levels: bytes, side: int, alt: str) -> str:
    """Return a square `<img>` of one color, which shows on light and dark pages; `levels` is the opacity of pixels."""
    from PIL import Image

    image = Image.new("RGBA", (side, side), _BLUE)
    image.putalpha(Image.frombytes("L", (side, side), levels))
    content = io.BytesIO()
    image.save(content, "PNG")
    return f'<img alt="{escape(alt, 200)}" src="{_data(content.getvalue(), "image/png")}">'


def sound(file: str) -> str:
    """Return a player of the first seconds of a sound file; a line that says why where it cannot be read.

    Empty for a file that is no sound.
    """
    from bigmodel.datasets.audio.wav import SUFFIXES, read_sound  # torch, which no picture needs

    if Path(file).suffix.lower() not in SUFFIXES:
        return ""
    try:
        found = read_sound(file)
    except DataError as error:
        return f'<p class="note">{escape(error.lines[0], 200)}</p>'
    return player(found.wave_T, found.rate)


def player(wave_T: Tensor, rate: int) -> str:
    """Return a player of the first seconds of a wave."""
    from bigmodel.datasets.audio.wav import encode_wav, resample

    kept = min(rate, _HIGHEST_RATE)
    content = encode_wav(resample(wave_T[: round(_LONGEST_SOUND_S * rate)], rate, kept), kept)
    return f'<audio controls preload="metadata" src="{_data(content, "audio/wav")}"></audio>'


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _list(facts: Sequence[tuple[str, str]]) -> str:
    pairs = "".join(f"<dt>{escape(name, 60)}</dt><dd>{escape(value, _MAX_TEXT)}</dd>" for name, value in facts)
    return f"<dl>{pairs}</dl>" if pairs else ""


def _fields(fields: Mapping[str, str]) -> str:
    left = len(fields) - _MAX_FIELDS
    more = f'<p class="note">and {left} more</p>' if left > 0 else ""
    return f"<hr>{_list(list(islice(fields.items(), _MAX_FIELDS)))}{more}"
