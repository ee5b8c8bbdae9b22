"""Read, find and set the image size of a config, and how an image is resized to it."""

import re
from collections.abc import Iterator
from typing import Any

from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config

from effdet_plugin.config.schema import RESIZE_KEY, SIZE_KEY, dicts_below, signature_of
from effdet_plugin.errors import ConfigError
from effdet_plugin.images import MAX_PIXELS, check_resize_mode


def parse_size(value: str | int | tuple[int, int]) -> tuple[int, int]:
    """Read an image size.

    Args:
        value: In pixels: an int or its text (a square), the text ``WIDTHxHEIGHT``, or a
            ``(height, width)`` pair.

    Returns:
        ``(height, width)``.

    Raises:
        ConfigError: The value is none of these, not positive, or more than `MAX_PIXELS`.
    """
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2
    text = f'{value[1]}x{value[0]}' if is_pair else str(value).strip()  # type: ignore[index]
    match = re.fullmatch(r'(\d+)(?:[xX](\d+))?', text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not width or not height:
        raise ConfigError(
            f'image size {value!r}: give one number (640) or WIDTHxHEIGHT (1920x1280), in pixels'
        )
    if width * height > MAX_PIXELS:
        raise ConfigError(
            f'image size {value!r}: more than {MAX_PIXELS // 1_000_000} million pixels'
        )
    return height, width


def find_sizes(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of every ``image_size``; see `dicts_below`."""
    for path, found in dicts_below(node, place):
        if SIZE_KEY in found:
            yield f'{path}.{SIZE_KEY}' if path else SIZE_KEY, found[SIZE_KEY]


def set_image_size(cfg: Config, size: str | int | tuple[int, int]) -> None:
    """Set every ``image_size`` of a config: top level, wrapped and inner datasets, pipelines.

    Args:
        cfg: Changed in place.
        size: As for `parse_size`; a pair is ``(height, width)``.

    Raises:
        ConfigError: The size cannot be read, or the config has no such key.
    """
    size = parse_size(size)
    sized = [found for _, found in dicts_below(cfg) if SIZE_KEY in found]
    if not sized:
        raise ConfigError(
            f'{cfg.filename or "the config"} has no {SIZE_KEY} to set: give its dataset '
            f"(or its transforms) an {SIZE_KEY}, as type='EfficientDetDataset' takes it"
        )
    for found in sized:
        found[SIZE_KEY] = size


def set_resize_mode(cfg: Config, mode: str) -> None:
    """Set how images are resized: in every dataset and transform of a config that can tell.

    Args:
        cfg: Changed in place.
        mode: One of `effdet_plugin.images.RESIZE_MODES`.

    Raises:
        ConfigError: The mode is unknown, or nothing in the config takes one.
    """
    check_resize_mode(mode)
    able = [found for _, found in dicts_below(cfg) if _takes_mode(found)]
    if not able:
        raise ConfigError(
            f'{cfg.filename or "the config"} has no {RESIZE_KEY} to set: give its pipelines '
            "LetterBox and ScaleJitterCrop, which take one; mmdet's Resize has keep_ratio instead"
        )
    for found in able:
        found[RESIZE_KEY] = mode
    if RESIZE_KEY in cfg:
        cfg[RESIZE_KEY] = mode


def _takes_mode(node: dict[str, Any]) -> bool:
    kind = node.get('type')
    target = kind
    if isinstance(kind, str):
        target = DATASETS.get(kind) or TRANSFORMS.get(kind)
    return callable(target) and RESIZE_KEY in signature_of(target).names
