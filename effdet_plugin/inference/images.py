"""Find, read and write image files."""

import glob
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import write_atomically

RGBImage = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset(
    {'.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
) | frozenset({'.avif', '.jfif', '.jp2', '.jpe', '.pbm', '.pgm', '.pnm', '.ppm'})
LIST_SUFFIXES = frozenset({'.txt', '.lst'})


def read_image(path: Path | str) -> RGBImage:
    """Read an image; its format is detected from its content, not its suffix.

    EXIF orientation is applied, 16 bits are scaled to 8, grey and palette images get three
    channels, transparency is dropped, and of an animation the first frame is read.

    Args:
        path: File to read.

    Returns:
        RGB pixels (H, W, 3).

    Raises:
        DatasetError: The file is missing, empty, truncated or not an image.
    """
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise DatasetError(f'cannot read {path}: {error.strerror}') from error
    if not data.size:
        raise DatasetError(f'cannot read {path}: the file is empty')
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DatasetError(f'cannot read {path}: {error.err}') from error
    if bgr is None:
        raise DatasetError(f'cannot read {path}: damaged, or not an image that OpenCV can decode')
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def write_image(path: Path, image: RGBImage) -> None:
    """Write an RGB image (H, W, 3) atomically; the suffix sets the format.

    Raises:
        DatasetError: The format cannot be written.
    """
    is_encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not is_encoded:
        raise DatasetError(f'cannot write {path}: OpenCV has no encoder for it; use .jpg or .png')
    write_atomically(path, data.tobytes())


def find_images(source: Path | str) -> list[Path]:
    """Return the image files of an INPUT argument, sorted by name; a list keeps its order.

    Args:
        source: An image; a folder (its own files with an image suffix, without sub-folders); a
            glob pattern, which may contain ``**``; or a ``.txt`` list with one path per line,
            relative to the list's folder or else to the current one.

    Raises:
        DatasetError: No file is found.
    """
    path = Path(source)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_list(path) if path.suffix.lower() in LIST_SUFFIXES else [path]
    if glob.has_magic(str(source)):
        found = sorted(Path(name) for name in glob.glob(str(source), recursive=True))
        files = [file for file in found if file.is_file()]
        if files:
            return files
        raise DatasetError(f'no file matches {source}')
    raise DatasetError(f'{source}: no such file or folder')


def _from_folder(folder: Path) -> list[Path]:
    """Return the images directly in a folder."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    files = [path for path in files if not path.name.startswith('.') and path.is_file()]
    if not files:
        raise DatasetError(f"no image in {folder}; for its sub-folders give '{folder}/**/*.jpg'")
    return files


def _from_list(path: Path) -> list[Path]:
    """Return the paths in a text file; whether they can be read is not checked here."""
    try:
        lines = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines()]
    except UnicodeDecodeError as error:
        raise DatasetError(f'{path} is not a list of paths in UTF-8 text') from error
    beside = [path.parent / line for line in lines if line and not line.startswith('#')]
    if not beside:
        raise DatasetError(f'{path} names no image')
    return [file if file.exists() else Path(file.relative_to(path.parent)) for file in beside]
