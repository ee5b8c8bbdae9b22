"""The files of a data folder, which of them are images, and the size of an image."""

import os
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

# What may be an image by its name; only the content tells what it really is.
_WORDS = 'jpg jpeg jpe jfif png bmp dib webp tif tiff gif ppm pgm pbm avif jp2'
SUFFIXES = frozenset(f'.{word}' for word in _WORDS.split())
# Folders of annotations whose images are in the folder above, or beside it.
ANNOTATION_FOLDERS = frozenset({'annotations', 'annotation', 'ann', 'anns', 'labels', '.exports'})
_LEFT_BY_SYSTEMS = frozenset({'__MACOSX', 'Thumbs.db', 'desktop.ini'})
# Hidden folders are skipped, but coco-annotator exports into one.
_HIDDEN_BUT_USED = frozenset({'.exports'})
# Images in such folders are drawn from the data and are not the data.
_DERIVED = re.compile(r'segmentation(class|object)\w*|masks?|visualizations?|thumbnails|overlays')
# Tag 274 of EXIF; from 5 on the image is turned by a quarter.
_ORIENTATION, _FIRST_QUARTER_TURN = 274, 5
# Last bytes of a complete file. Cameras may append more to a JPEG, so a long tail is searched.
_USUAL_TAIL = 64
_ENDS = {'JPEG': (b'\xff\xd9', 65536), 'PNG': (b'IEND', 64)}


@dataclass(frozen=True)
class Tree:
    """The files below a folder, in the order of their names.

    Args:
        root: The folder.
        files: All files that are not hidden.
    """

    root: Path
    files: list[Path]

    @cached_property
    def images(self) -> list[Path]:
        """Files that are images by their name and not drawn from others (masks, overlays)."""
        images = [path for path in self.files if path.suffix.lower() in SUFFIXES]
        return [path for path in images if not self._is_derived(path)] or images

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Return the files that end in one of the suffixes, in upper or lower case."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def named(self, *names: str) -> list[Path]:
        """Return the files of one of the names (lower case), the least deep first."""
        found = [path for path in self.files if path.name.lower() in names]
        return sorted(found, key=lambda path: (len(path.parts), path.as_posix()))

    def parts(self, path: Path) -> tuple[str, ...]:
        """Return the parts of a path below the root; of the full path if it lies elsewhere."""
        inside = path.is_relative_to(self.root)
        return path.relative_to(self.root).parts if inside else path.parts

    def holds(self, path: Path) -> bool:
        """Return whether the path lies below the root."""
        return self.root in path.parents

    def short(self, path: Path) -> str:
        """Return the path for a message: from the root where it can be."""
        return '/'.join(self.parts(path))

    def _is_derived(self, path: Path) -> bool:
        return any(_DERIVED.fullmatch(part.lower()) for part in self.parts(path)[:-1])


def list_tree(root: Path) -> Tree:
    """List all files below a folder; links to folders are followed, but not in circles."""
    files: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(_is_visible, folders))
        files.extend(Path(folder, name) for name in sorted(filter(_is_visible, names)))
    return Tree(root, files)


def _is_visible(name: str) -> bool:
    if name in _LEFT_BY_SYSTEMS:
        return False
    return not name.startswith('.') or name in _HIDDEN_BUT_USED


class UnreadableImageError(Exception):
    """The file is no image, or an incomplete one; the text says why."""


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image as it is shown, its orientation tag obeyed.

    Reads the header and the last bytes; only a file that ends too early is decoded.

    Args:
        path: An image; its content counts, not its suffix.

    Raises:
        UnreadableImageError: It is missing, no image, or cut short.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Pillow.DecompressionBombWarning)
            with path.open('rb') as file, Pillow.open(file) as image:
                width, height = image.size
                turned = _orientation(image) >= _FIRST_QUARTER_TURN
                if not _is_complete(file, image.format):
                    image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Pillow.DecompressionBombError) as error:
        raise UnreadableImageError(_reason(path, error)) from error
    return (height, width) if turned else (width, height)


def _orientation(image: Pillow.Image) -> int:
    # Pillow decodes a PNG to look for a tag behind the pixels; image readers ignore it there.
    if image.format == 'PNG' and 'exif' not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_complete(file: BinaryIO, form: str | None) -> bool:
    if form not in _ENDS:
        return True
    mark, longest = _ENDS[form]
    end = file.seek(0, os.SEEK_END)
    for length in (_USUAL_TAIL, longest):
        file.seek(max(0, end - length))
        if mark in file.read():
            return True
    return False


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return 'no such file'
    if path.stat().st_size == 0:
        return 'the file is empty'
    return 'no known image format' if isinstance(error, UnidentifiedImageError) else str(error)
