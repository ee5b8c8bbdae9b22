"""Sizes of pictures, read from their headers."""

import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

#: What may be a picture by its name; what it really is, its content tells.
_WORDS = 'jpg jpeg jpe jfif png bmp dib webp tif tiff gif ppm pgm pbm avif jp2'
SUFFIXES = frozenset(f'.{word}' for word in _WORDS.split())
#: Tag 274 of EXIF; from 5 on the picture is turned by a quarter.
_ORIENTATION, _FIRST_QUARTER_TURN = 274, 5
#: Last bytes of a whole file. Cameras may append more to a JPEG, so a long tail is searched.
_USUAL_TAIL = 64
_ENDS = {'JPEG': (b'\xff\xd9', 65536), 'PNG': (b'IEND', 64)}


class UnreadableImageError(Exception):
    """The file is no picture, or not a whole one; the text says why."""


def is_image(path: Path) -> bool:
    """Whether the name looks like that of a picture."""
    return path.suffix.lower() in SUFFIXES


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of the picture as it is shown, its orientation tag obeyed.

    Reads the header and the last bytes; only a file that ends too early is decoded.

    Args:
        path: A picture; its content counts, not its suffix.

    Raises:
        UnreadableImageError: If it is missing, no picture, or cut short.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Pillow.DecompressionBombWarning)
            with path.open('rb') as file, Pillow.open(file) as image:
                width, height = image.size
                turned = _orientation(image) >= _FIRST_QUARTER_TURN
                if not _is_whole(file, image.format):
                    image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Pillow.DecompressionBombError) as error:
        raise UnreadableImageError(_reason(path, error)) from error
    return (height, width) if turned else (width, height)


def _orientation(image: Pillow.Image) -> int:
    # Pillow decodes a whole PNG to look for a tag behind the pixels; readers ignore it there.
    if image.format == 'PNG' and 'exif' not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_whole(file: BinaryIO, kind: str | None) -> bool:
    if kind not in _ENDS:
        return True
    mark, longest = _ENDS[kind]
    size = file.seek(0, 2)
    for length in (_USUAL_TAIL, longest):
        file.seek(max(0, size - length))
        if mark in file.read():
            return True
    return False


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return 'no such file'
    if path.stat().st_size == 0:
        return 'the file is empty'
    if isinstance(error, UnidentifiedImageError):
        return 'no picture that is known'
    return str(error)
