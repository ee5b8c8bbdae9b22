"""Read the images of a training: from a cache, and no larger than their random scale needs.

Both are switches of `EfficientDetDataset`. A cache changes no image. Reduced decoding does: where
the scale drawn for an image is at most a half, a quarter or an eighth of its size, its JPEG is
decoded at that size (libjpeg leaves out the higher frequencies of each block), so that small
objects are smoother than after resizing the whole image without antialiasing.
"""

import os
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile

from effdet_plugin.datasets.cache import Cache
from effdet_plugin.datasets.transforms import ScaleJitterCrop, scaled_shape
from effdet_plugin.errors import ConfigError, DatasetError

_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
READING_ERRORS = (OSError, AssertionError, cv2.error)  # of loaders where an image is damaged
_JPEG, _SUFFIXES = b'\xff\xd8', ('.jpg', '.jpeg')
# Steps before the crop that take an image of any size and move all boxes with it.
_ANY_SIZE = ('ToRGB', 'LoadAnnotations', 'RandomFlip', 'PhotoMetricDistortion', 'GridMask')


class ImageReader:
    """In place of ``LoadImageFromFile``; sets the same keys.

    A reduced image is a smaller image: ``instances`` are scaled with it, ``ori_shape`` stays that
    of the file. ``reduction`` and ``jitter_scale`` tell the crop what was done and drawn.

    Args:
        loader: The step that is replaced; it reads what is not reduced.
        crop: The pipeline's crop, whose scale is drawn before reading; None: nothing is reduced.
        cache: Of decoded images, or None.
    """

    def __init__(
        self, loader: LoadImageFromFile, crop: ScaleJitterCrop | None, cache: Cache | None
    ) -> None:
        self.loader, self.crop, self.cache = loader, crop, cache

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read ``results['img_path']``."""
        wanted = self._reduction(results)
        image, reduction = self._read(results, wanted)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        if reduction > 1:
            results.update(ori_shape=(results['height'], results['width']), reduction=reduction)
            for instance in results.get('instances', ()):
                instance['bbox'] = [side / reduction for side in instance['bbox']]
        return results

    def _read(self, results: dict[str, Any], reduction: int) -> tuple[np.ndarray, int]:
        """Return an image, and by what it is reduced: 1 where it cannot be as wanted."""
        path = results['img_path']
        key = image_key(path, reduction) if self.cache else None
        image = self.cache.get(key) if self.cache and key else None
        is_cached = image is not None
        if image is None and reduction > 1:
            image = _decode_reduced(path, reduction)
        elif image is None:
            image = self.loader({'img_path': path})['img']
        if image is None or (reduction > 1 and not _is_reduced(image, results, reduction)):
            return self._read(results, 1)
        if self.cache and key and not is_cached:
            self.cache.put(key, image)
        return image, reduction

    def _reduction(self, results: dict[str, Any]) -> int:
        """Draw the scale; return by what the image may be reduced.

        By the annotations' size; where it is not the file's, the image is read whole.
        """
        if self.crop is None:
            return 1
        scale = results['jitter_scale'] = self.crop.draw_scale()
        height, width = results.get('height'), results.get('width')
        # Others than JPEGs would be decoded whole.
        if not height or not width or not results['img_path'].lower().endswith(_SUFFIXES):
            return 1
        target = scaled_shape(self.crop.size(), np.float32(scale))
        scaled, _ = self.crop.fitted((height, width), target)
        share = max(scaled[0] / height, scaled[1] / width)
        return max([1, *(n for n in _REDUCED if n * share <= 1)])


def _decode_reduced(path: str, reduction: int) -> np.ndarray | None:
    """Decode a JPEG at a part of its size, turned as EXIF says; None if it is no JPEG."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError:  # the loader says it
        return None
    if data[:2].tobytes() != _JPEG:
        return None
    return cv2.imdecode(data, _REDUCED[reduction])


def _is_reduced(image: np.ndarray, results: dict[str, Any], reduction: int) -> bool:
    """Whether a reduced image is as large as the annotations' size makes it; libjpeg rounds up."""
    sides = results['height'], results['width']
    return image.shape[:2] == tuple(-(-side // reduction) for side in sides)


def set_reader(steps: list[Any], cache: Cache | None, reduced: bool) -> None:
    """Put an `ImageReader` in place of the first step of a built pipeline.

    Args:
        steps: Changed in place; one that has a reader is left as it is.
        cache: Of decoded images, or None.
        reduced: Decode at reduced size.

    Raises:
        ConfigError: The first step reads in another way; a step before the crop needs whole images.
    """
    if steps and isinstance(steps[0], ImageReader):
        return
    first = steps[0] if steps else None
    if not isinstance(first, LoadImageFromFile) or not _is_plain(first):
        raise ConfigError(
            'cache and reduced_decoding need a pipeline that begins with LoadImageFromFile, '
            f'without arguments; this one begins with {type(first).__name__}'
        )
    steps[0] = ImageReader(first, _crop_in(steps) if reduced else None, cache)


def _is_plain(loader: LoadImageFromFile) -> bool:
    """Whether a step reads local files as uint8 in colour, as `ImageReader` does."""
    return (
        type(loader) is LoadImageFromFile
        and (loader.color_type, loader.imdecode_backend) == ('color', 'cv2')
        and not (loader.to_float32 or loader.backend_args or loader.file_client_args)
        and not loader.ignore_empty
    )


def _crop_in(steps: list[Any]) -> ScaleJitterCrop:
    for step in steps[1:]:
        if isinstance(step, ScaleJitterCrop):
            return step
        if type(step).__name__ not in _ANY_SIZE or getattr(step, 'with_mask', False):
            raise ConfigError(
                f'reduced_decoding: {type(step).__name__} stands before ScaleJitterCrop and may '
                'need the whole image; leave reduced_decoding out'
            )
    raise ConfigError('reduced_decoding: the pipeline has no ScaleJitterCrop; leave it out')


def raise_if_unreadable(path: str, error: Exception) -> None:
    """Raise in place of a pipeline's error where an image is its cause.

    Args:
        path: File of the image.
        error: One of `READING_ERRORS`.

    Raises:
        DatasetError: OpenCV does not decode the file.
    """
    try:
        is_readable = cv2.imread(path) is not None
    except cv2.error:
        is_readable = False
    if not is_readable:
        raise DatasetError(f'{path}: the image is missing or cannot be read') from error


def image_key(path: str, reduction: int) -> str | None:
    """Return what tells a decoded image from all others; None if the file is not there."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    # A file that replaces another may have its size and time of change, but not of arrival.
    file = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return '\0'.join(map(str, (*file, reduction, cv2.__version__)))  # decoders differ
