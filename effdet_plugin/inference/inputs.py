"""Images as Python programs hold them, made what `read_image` gives: RGB pixels (H, W, 3) uint8."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.files import RGBImage
from effdet_plugin.images import DARK_BELOW, MAX_PIXELS, check_array, dark, read_image

# One image, see `as_image`.
Image = np.ndarray[Any, Any] | torch.Tensor | Pillow.Image | PathLike[str] | str
ORDERS = ('rgb', 'bgr')
_CHANNELS = (1, 2, 3, 4)
_DEEP = ('I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')  # Pillow's modes of more than 8 bits
_ROUNDING = 1e-3  # by which an image of 0..1 may leave it: interpolation of floats


def as_image(image: Image, channel_order: str = 'rgb') -> RGBImage:
    """Return an image as RGB pixels ``(H, W, 3)`` uint8.

    - a path: `read_image`;
    - a Pillow image of any mode: turned by its EXIF orientation, transparency dropped;
    - an array or tensor: ``(H, W)`` or ``(H, W, C)`` or ``(C, H, W)`` of 1 channel (grey), 2 (grey
      and alpha), 3, or 4 (and alpha, which is dropped). Where both ends could be channels, an
      array's last and a tensor's first are. uint8 as it is; uint16 by its upper 8 bits; floats
      from 0 to 1 by 255.

    Args:
        image: See above; not changed.
        channel_order: Of arrays and tensors: ``'rgb'``, or ``'bgr'`` as OpenCV reads.

    Raises:
        DatasetError: What scale or order its numbers have is not known.
        ConfigError: An unknown ``channel_order``.
    """
    if channel_order not in ORDERS:
        raise ConfigError(f"channel_order={channel_order!r}: choose 'rgb' or 'bgr'")
    if isinstance(image, PathLike | str):
        return read_image(Path(fspath(image)))
    if isinstance(image, Pillow.Image):
        return _from_pillow(image)
    if isinstance(image, torch.Tensor):
        tensor = image.detach().cpu()
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        pixels, first = tensor.numpy(), 0
    elif isinstance(image, np.ndarray):
        pixels, first = image, -1
    else:
        raise DatasetError(no_image(image))
    pixels = _colour(_last_channels(pixels, first), channel_order)
    pixels = np.ascontiguousarray(_whole_levels(pixels))
    check_array(pixels)
    return pixels


def _from_pillow(image: Pillow.Image) -> RGBImage:
    if image.width * image.height > MAX_PIXELS:
        raise DatasetError(
            f'an image of {image.width}x{image.height}: more than {MAX_PIXELS // 1_000_000} '
            'million pixels; cut it into tiles'
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP:
            # Pillow opens 16 bits also with numbers of 32.
            pixels = np.asarray(image)
            is_16_bit = pixels.dtype == np.int32 and 0 <= pixels.min() <= pixels.max() < 1 << 16
            return as_image(pixels.astype(np.uint16) if is_16_bit else pixels)
        return np.asarray(image.convert('RGB'))
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DatasetError | ConfigError):
            raise
        name = getattr(image, 'filename', '') or 'a Pillow image'
        raise DatasetError(f'{name}: cannot be read ({str(error).splitlines()[0]})') from error


def _last_channels(pixels: np.ndarray[Any, Any], first: int) -> np.ndarray[Any, Any]:
    """Return an image as (H, W, C).

    Args:
        pixels: (H, W), (H, W, C) or (C, H, W).
        first: Which end is looked at first, 0 or -1.
    """
    if pixels.ndim == 2:
        return pixels[..., None]
    ends = [
        end for end in (first, -1 - first) if pixels.ndim == 3 and pixels.shape[end] in _CHANNELS
    ]
    if not ends or not pixels.size:
        raise DatasetError(
            f'an image is an array of (H, W, 3) or (3, H, W); this one has the shape '
            f'{tuple(pixels.shape)}'
        )
    return np.moveaxis(pixels, ends[0], -1)


def _colour(pixels: np.ndarray[Any, Any], order: str) -> np.ndarray[Any, Any]:
    """Return (H, W, C) as (H, W, 3) in RGB: grey is repeated, alpha dropped."""
    if pixels.shape[2] < 3:
        return np.repeat(pixels[..., :1], 3, axis=2)
    return pixels[..., 2::-1] if order == 'bgr' else pixels[..., :3]


def _whole_levels(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return pixels of a known scale in 0 to 255."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        largest = int(pixels.max())
        if 0 < largest < DARK_BELOW:
            raise DatasetError(f'an array of uint16: {dark(largest)}')
        return (pixels >> 8).astype(np.uint8)  # as OpenCV does when it reads a file of 16 bits
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DatasetError(
            f'an image of {pixels.dtype}: its scale is unknown; convert it to uint8, 0 to 255'
            + (' (times 255)' if pixels.dtype == bool else '')
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also where one is NaN
        raise DatasetError(
            f'an image of {pixels.dtype} from {low:g} to {high:g}: floats are taken from 0 to 1; '
            'convert it to uint8, 0 to 255, before any normalisation'
        )
    return (pixels.astype(np.float32) * 255).round().clip(0, 255).astype(np.uint8)


def no_image(value: object) -> str:
    """Return the line for what is neither an image nor several."""
    hint = ': cv2.imread gives it for a file that it cannot read' if value is None else ''
    kinds: Sequence[str] = ('a path', 'an array', 'a tensor', 'a Pillow image')
    return f'{type(value).__name__} is no image{hint}; give {", ".join(kinds)} or several of them'
