"""Find broken sound files before training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bigmodel.datasets.audio.wav import SoundfileMissing, read_header, read_sound
from bigmodel.errors import DataError


def find_broken_sounds(paths: Sequence[str], decode: bool = False) -> dict[str, str]:
    """Problems of broken files by path: what the headers show and, of Ogg and MP3, the frame around each block.

    With `decode` every file is decoded once, which alone finds damage within a block of FLAC.

    Raises:
        SoundfileMissing: what decodes a file is not installed.
    """

    def problem(path: str) -> str | None:
        try:
            read_header(path)
            if decode:
                read_sound(path)
        except SoundfileMissing:
            raise
        except DataError as error:
            return str(error).partition(": ")[2].removesuffix("; mend or remove it")
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return {path: line for path, line in zip(paths, pool.map(problem, paths), strict=True) if line}
