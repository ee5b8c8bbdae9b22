"""The network's input size: read from a command line, and set everywhere in a config."""

import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from effdet_plugin.errors import ConfigError

SIZE_KEY = 'image_size'
Size = tuple[int, int]


def parse_size(value: str | int | tuple[int, int]) -> Size:
    """Read an image size.

    Args:
        value: An int or its text (a square), ``WIDTHxHEIGHT`` as people write it on a command
            line, or a ``(height, width)`` pair, which is returned as it is. Pixels.

    Returns:
        ``(height, width)``.

    Raises:
        ConfigError: What was given is none of these, or not positive.
    """
    height: Any
    width: Any
    if isinstance(value, (tuple, list)) and len(value) == 2:
        height, width = value
    else:
        match = re.fullmatch(r'(\d+)(?:[xX](\d+))?', str(value).strip())
        width, height = (match[1], match[2] or match[1]) if match else (0, 0)
    if not str(height).isdigit() or not str(width).isdigit() or not int(height) or not int(width):
        raise ConfigError(
            f'image size {value!r}: give one number (640) or WIDTHxHEIGHT (1920x1280), in pixels'
        )
    return int(height), int(width)


def find_sizes(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the config path and the value of every ``image_size`` below a node."""
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, dict):
        children: Any = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        child_path = f'{path}.{key}' if path else str(key)
        if key == SIZE_KEY:
            yield child_path, child
        else:
            yield from find_sizes(child, child_path)


def set_image_size(cfg: Config, size: str | int | tuple[int, int]) -> None:
    """Set every ``image_size`` of a config: top level, data sets however wrapped, pipelines.

    Args:
        cfg: Changed in place.
        size: As for `parse_size`; a pair is ``(height, width)``.

    Raises:
        ConfigError: The size cannot be read, or the config has no such key.
    """
    size = parse_size(size)
    if not _set_below(cfg._cfg_dict, size):
        raise ConfigError(
            f'{cfg.filename or "the config"} has no {SIZE_KEY} to set: give its data set '
            f"(or its transforms) an {SIZE_KEY}, as type='EfficientDetDataset' takes it"
        )


def _set_below(node: Any, size: Size) -> int:
    """Set the key in every dict below a node; returns how many were set."""
    if isinstance(node, dict):
        count = sum(_set_below(child, size) for key, child in node.items() if key != SIZE_KEY)
        if SIZE_KEY in node:
            node[SIZE_KEY] = size
            count += 1
        return count
    return sum(_set_below(child, size) for child in node) if isinstance(node, (list, tuple)) else 0
