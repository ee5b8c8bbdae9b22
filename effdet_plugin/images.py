"""Images: how large the network sees them, from the header; their pixels; resizing."""

import math
import os
import reprlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.files import RGBImage

# How an image meets an input size. 'letterbox' fits it in and pads it (google/automl); the others
# stretch it: as OpenCV and TensorFlow Lite's Task library, or as MediaPipe Tasks sample it.
RESIZE_MODES = ('letterbox', 'stretch', 'stretch_mediapipe')
# No reader decodes more: three such images of 8 bits in colour are a gigabyte.
MAX_PIXELS = 100_000_000
# Values of a 16-bit image below this are 8- or 12-bit content: at most 15 of 255 when scaled.
DARK_BELOW = 1 << 12
# A whole set below this may be of 14 or 15 bits; that it is dark cannot be ruled out.
HALF_BRIGHT = 1 << 15
# What OpenCV decodes, too. Pillow's other formats may even start programs (EPS).
_FORMATS = ['JPEG', 'PNG', 'BMP', 'DIB', 'WEBP', 'TIFF', 'GIF', 'PPM', 'AVIF', 'JPEG2000']
# Tag 274 of EXIF; from 5 on the image is turned by a quarter. Tags have 12 bytes in a directory.
_ORIENTATION, _FIRST_QUARTER_TURN, _TAG_BYTES = 274, 5, 12
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_SIGN = 256, 257, 258, 339
# Tags of texts and (with their number) of fractions that OpenCV reads: broken ones stop it.
_EXIF_TEXTS = frozenset({270, 271, 272, 305, 306, 33432})
_EXIF_FRACTIONS = {282: 1, 283: 1, 318: 2, 319: 6, 529: 3, 532: 6}
_UNSIGNED = 1  # value of the last
_PPM_SCALES = (255, 65535)  # OpenCV ignores other largest values
# OpenCV ignores the orientation of the other formats, also where Pillow reports one (AVIF).
_TURNED_FORMATS = frozenset({'JPEG', 'MPO', 'PNG', 'WEBP', 'TIFF'})
_UNKNOWN_SCALE = (
    'signed numbers, 32 bits or floating point, whose scale is unknown: save it with 8 bits'
)
# Last bytes of a complete file; what ends in another way is decoded.
_TAIL = 64
_ENDS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND'}


class UnreadableImageError(Exception):
    """The file is no image, an incomplete or a too large one; the text says why."""


class Header(NamedTuple):
    """What the header of an image says.

    Args:
        size: (width, height) of the pixels as the network sees them: turned by the orientation tag
            if OpenCV turns them.
        orientation: The tag where OpenCV obeys it, else 1.
        has_16_bits: More than 8 bits for each number, which are scaled down by 256.
    """

    size: tuple[int, int]
    orientation: int
    has_16_bits: bool

    @property
    def is_quarter_turned(self) -> bool:
        """Whether width and height are exchanged by the orientation tag."""
        return self.orientation >= _FIRST_QUARTER_TURN


def read_header(path: Path) -> Header:
    """Return size, orientation and depth of an image.

    Reads the header and the last bytes; only a file that seems to end too early is decoded.

    Args:
        path: An image; its content counts, not its suffix.

    Raises:
        UnreadableImageError: It is missing, no image, cut short, too large or of 32-bit numbers.
    """
    if not os.path.isfile(path):  # a pipe or device has no end
        raise UnreadableImageError('no regular file' if os.path.exists(path) else 'no such file')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with path.open('rb') as file, Pillow.open(file, formats=_FORMATS) as image:
                header = _header_of(image)
                if not _is_complete(file, image.format):
                    image.load()
                return header
    except Exception as error:  # of damaged files, Pillow raises a dozen types
        raise UnreadableImageError(_reason(path, error)) from error


def read_image(path: Path | str) -> RGBImage:
    """Read an image; its format is detected from its content, not its suffix.

    EXIF orientation is applied, 16 bits are scaled to 8, grey and palette images get three
    channels, transparency is dropped, and of an animation the first frame is read.

    Args:
        path: File to read.

    Returns:
        RGB pixels (H, W, 3).

    Raises:
        DatasetError: The file is missing, empty, cut short, not an image, of more than
            `MAX_PIXELS`, or of a depth whose scale is unknown.
    """
    path = Path(path)
    try:
        header = read_header(path)
        if header.has_16_bits and 0 < (largest := largest_value(path)) < DARK_BELOW:
            raise UnreadableImageError(dark(largest))
        bgr = _decode(path, cv2.IMREAD_COLOR)
    except UnreadableImageError as error:
        raise DatasetError(f'{path}: cannot be read ({error})') from error
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def check_array(pixels: np.ndarray[Any, Any]) -> None:
    """Check that an array is an image as `read_image` gives it.

    Raises:
        DatasetError: It is not (H, W, 3), or not uint8: the scale of other types is unknown.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DatasetError(
            f'an image is an array (H, W, 3) of uint8, RGB, 0 to 255; this one is '
            f'{pixels.shape} of {pixels.dtype}: convert it'
        )


def check_resize_mode(mode: object) -> None:
    """Raise ConfigError for a mode that is none of `RESIZE_MODES`."""
    if mode not in RESIZE_MODES:
        raise ConfigError(
            f'resize_mode={reprlib.repr(mode)} (--resize) is unknown; choose one of '
            f'{", ".join(RESIZE_MODES)}'
        )


def resize(image: np.ndarray[Any, Any], height: int, width: int, mode: str) -> np.ndarray[Any, Any]:
    """Resize an image bilinearly, without antialiasing.

    Args:
        image: ``(H, W, 3)``, uint8 or float32.
        height: In pixels.
        width: In pixels.
        mode: One of `RESIZE_MODES`. Only ``'stretch_mediapipe'`` has other source pixels than
            OpenCV's resize: ``(x * W / width, y * H / height)``, without the half pixel's shift;
            beyond the last pixel that is repeated.

    Returns:
        ``(height, width, 3)`` of the same type.
    """
    if mode != 'stretch_mediapipe':
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    matrix = np.diag([width / image.shape[1], height / image.shape[0], 1.0])
    return cv2.warpPerspective(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def resize_window(
    image: np.ndarray[Any, Any], size: tuple[int, int], mode: str, rows: slice, columns: slice
) -> np.ndarray[Any, Any]:
    """Return a window of a resized image, bit for bit; what lies beyond it is not all resized.

    OpenCV's resize takes the scale and a part of the image, but no shift by a fraction of a pixel:
    only what lies to the right of the window and below it can be left out, and only of uint8 (of
    float32 it takes the scale from the sizes).

    Args:
        image: ``(H, W, 3)``; a view that is mirrored (negative strides) is straightened.
        size: (height, width) of the whole resized image.
        mode: See `resize`.
        rows: Of the resized image; its ``stop`` is at most the height.
        columns: Likewise.
    """
    if image.dtype != np.uint8 or mode == 'stretch_mediapipe':
        return resize(straight(image), *size, mode)[rows, columns]
    ends = (rows.stop, columns.stop)
    # A resized pixel reads the source at (x + 1/2) * scale - 1/2 and the pixel after it.
    needed = [
        min(old, math.ceil((end + 0.5) * old / new) + 2)
        for end, old, new in zip(ends, image.shape, size, strict=False)
    ]
    scales = [new / old for new, old in zip(size, image.shape, strict=False)]
    made = [round(count * scale) for count, scale in zip(needed, scales, strict=True)]
    # A part that keeps its size would be copied.
    if needed == list(image.shape[:2]) or made == needed or min(made) < 1:
        return resize(straight(image), *size, mode)[rows, columns]
    part = straight(image[: needed[0], : needed[1]])
    part = cv2.resize(part, None, fx=scales[1], fy=scales[0], interpolation=cv2.INTER_LINEAR)
    return part[rows, columns]


def straight(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an image without negative strides: OpenCV mirrors 50 times as fast as numpy copies."""
    if image.dtype == np.uint8 and image.strides[1] < 0 < image.strides[0]:
        return cv2.flip(image[:, ::-1], 1)
    return image


def largest_value(path: Path) -> int:
    """Return the largest number of an image of 16 bits.

    Raises:
        UnreadableImageError: OpenCV cannot decode it.
    """
    pixels = _decode(path, cv2.IMREAD_UNCHANGED)
    # Transparency, the fourth, is dropped, and often at its end.
    return int((pixels[..., :3] if pixels.ndim == 3 else pixels).max())


def dark(largest: int) -> str:
    """Return what is wrong with a 16-bit image whose largest number is below `DARK_BELOW`."""
    return (
        f'16 bits, of which only 0 to {largest} is used, so all would be nearly black: scale it to '
        'the whole range, or save it with 8 bits'
    )


def _decode(path: Path, flag: int) -> np.ndarray[Any, Any]:
    """Decode an image whose header has been read."""
    try:
        with _quiet():
            pixels = cv2.imdecode(np.fromfile(path, np.uint8), flag)
    except cv2.error as error:
        raise UnreadableImageError(' '.join(str(error.err).split())) from error
    except (OSError, MemoryError) as error:
        reason = getattr(error, 'strerror', None) or 'too large'
        raise UnreadableImageError(reason) from error
    if pixels is None:
        raise UnreadableImageError('damaged, or not an image for OpenCV')
    return pixels


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV from printing what the error says as well."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _header_of(image: Pillow.Image) -> Header:
    width, height = image.size
    bits = 8
    if image.format == 'TIFF':  # newer versions of Pillow have turned the size already
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
        bits = max(tags.get(_TIFF_BITS, (1,)))
        if any(sign != _UNSIGNED for sign in tags.get(_TIFF_SIGN, ())):
            raise UnreadableImageError(_UNKNOWN_SCALE)
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(_too_large(f'{width}x{height}, '))
    if image.mode == 'F' or bits > 16:
        raise UnreadableImageError(_UNKNOWN_SCALE)
    if image.format == 'PPM' and (largest := _largest_of_ppm(image)) not in _PPM_SCALES:
        raise UnreadableImageError(f'its white is {largest}, and OpenCV takes 255: save it as png')
    deep = bits > 8 or image.mode.startswith('I') or _has_deep_tiles(image)
    orientation = _orientation(image)
    turned = orientation >= _FIRST_QUARTER_TURN
    return Header((height, width) if turned else (width, height), orientation, deep)


def _has_deep_tiles(image: Pillow.Image) -> bool:
    """Return whether raw mode or largest value of the pixels is of 16 bits (RGB of PNG, PPM)."""
    words = str([tile[3] for tile in getattr(image, 'tile', [])[:1]])
    return ';16' in words or '65535' in words


def _largest_of_ppm(image: Pillow.Image) -> int:
    """Return the number that stands for white in a PGM or PPM."""
    arguments = [tile[3] for tile in getattr(image, 'tile', [])[:1]]
    numbers = [one[-1] for one in arguments if isinstance(one, tuple) and isinstance(one[-1], int)]
    return int(numbers[0]) if numbers else 255


def _orientation(image: Pillow.Image) -> int:
    """Return the orientation that OpenCV obeys; Pillow's own look-up takes XMP's as well."""
    if image.format not in _TURNED_FORMATS:
        return 1
    if image.format == 'TIFF':
        value = image.tag_v2.get(_ORIENTATION, 1)  # type: ignore[attr-defined]
    else:
        value = _exif_orientation(image.info.get('exif', b''))
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data as OpenCV finds it.

    It takes two bytes of any type, of the first such tag, unless an earlier tag is broken.
    """
    exif = exif.removeprefix(b'Exif\0\0')
    order: Literal['little', 'big'] = 'big' if exif[:2] == b'MM' else 'little'

    def at(place: int, length: int = 2) -> int:
        return int.from_bytes(exif[place : place + length], order)

    if exif[:2] not in (b'II', b'MM') or at(2) != 42:
        return 1
    first = at(4, 4) + 2
    last = min(first + _TAG_BYTES * at(first - 2), len(exif) - 9)
    for place in range(first, last, _TAG_BYTES):
        tag, count = at(place), at(place + 4, 4)
        if tag == _ORIENTATION:
            return at(place + 8)
        size = 8 * _EXIF_FRACTIONS.get(tag, 0) or (count if tag in _EXIF_TEXTS else 0)
        if size > 4 and at(place + 8, 4) + size > len(exif):
            break
    return 1


def _is_complete(file: BinaryIO, form: str | None) -> bool:
    end = file.seek(0, os.SEEK_END)
    if form == 'WEBP':  # the size of what follows the first eight bytes stands in them
        file.seek(4)
        return int.from_bytes(file.read(4), 'little') + 8 <= end
    file.seek(max(0, end - _TAIL))
    return form in _ENDS and _ENDS[form] in file.read()


def _too_large(size: str) -> str:
    return f'{size}more than {MAX_PIXELS // 1_000_000} million pixels: cut it into tiles'


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnreadableImageError):
        return str(error)
    if path.stat().st_size == 0:
        return 'the file is empty'
    if isinstance(error, Pillow.DecompressionBombError):
        return _too_large('')
    if isinstance(error, UnidentifiedImageError):
        with path.open('rb') as file:
            is_tiff = file.read(4) in (b'II*\0', b'MM\0*')
        return f'a TIFF of {_UNKNOWN_SCALE}, or damaged' if is_tiff else 'no known image format'
    return ' '.join(str(error).split())[:120] or type(error).__name__
