"""Walk over the dataset nodes of a config, through wrappers of any depth; set the image size.

A wrapper has its dataset under ``dataset`` (``RepeatDataset``, ``EfficientDetDataset``) or several
under ``datasets`` (``ConcatDataset``); a source has neither and reads files.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config

from effdet_plugin.config.schema import TOP_LEVEL_KEYS, signature_of
from effdet_plugin.errors import ConfigError

SIZE_KEY = 'image_size'
_MAX_PLACES = 3  # named in a suggestion


def dataset_nodes(node: Any) -> Iterator[Any]:
    """Yield a dataset node and all nodes that it wraps, outermost first.

    Args:
        node: A dict of a config, such as ``cfg.test_dataloader.dataset``; None yields nothing.
    """
    if not isinstance(node, dict):
        return
    yield node
    for inner in _wrapped(node):
        yield from dataset_nodes(inner)


def source_nodes(node: Any) -> Iterator[Any]:
    """Yield the nodes that read files: those that wrap no other.

    Args:
        node: See `dataset_nodes`.
    """
    return (one for one in dataset_nodes(node) if not _wrapped(one))


def map_sources(node: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of a dataset node with every source replaced.

    Args:
        node: See `dataset_nodes`; not changed.
        change: Returns the replacement of a source.
    """
    if not _wrapped(node):
        return change(node)
    copy = node.copy()
    if node.get('dataset'):
        copy['dataset'] = map_sources(node['dataset'], change)
    if node.get('datasets'):
        copy['datasets'] = [map_sources(one, change) for one in node['datasets']]
    return copy


def class_names(node: Any) -> tuple[str, ...]:
    """Return the class names of the first node with any: of its ``metainfo``, else of its type.

    Args:
        node: See `dataset_nodes`.
    """
    for one in dataset_nodes(node):
        classes = (one.get('metainfo') or {}).get('classes')
        classes = classes or getattr(DATASETS.get(one.get('type')), 'METAINFO', {}).get('classes')
        if classes:
            return (classes,) if isinstance(classes, str) else tuple(classes)
    return ()


def _wrapped(node: Any) -> list[Any]:
    return [one for one in (node.get('dataset'), *(node.get('datasets') or [])) if one]


def parse_size(value: str | int | tuple[int, int]) -> tuple[int, int]:
    """Read an image size.

    Args:
        value: In pixels: an int or its text (a square), the text ``WIDTHxHEIGHT``, or a
            ``(height, width)`` pair.

    Returns:
        ``(height, width)``.

    Raises:
        ConfigError: The value is none of these, or not positive.
    """
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2
    text = f'{value[1]}x{value[0]}' if is_pair else str(value).strip()  # type: ignore[index]
    match = re.fullmatch(r'(\d+)(?:[xX](\d+))?', text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not width or not height:
        raise ConfigError(
            f'image size {value!r}: give one number (640) or WIDTHxHEIGHT (1920x1280), in pixels'
        )
    return height, width


def dicts_below(node: Any, place: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the content of every dict of a config, the outer ones first.

    Args:
        node: A config, or any part of one.
        place: Dotted path of ``node``, '' for a whole config.
    """
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, dict):
        yield place, node
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        if isinstance(child, (dict, list, tuple)):
            yield from dicts_below(child, f'{place}.{key}' if place else str(key))


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


def size_pipelines(dataset: Any) -> None:
    """Write the ``image_size`` of dataset nodes into the transforms of their pipelines.

    This is for pipelines that are built without their dataset: by mmdet's inference, or for TTA.

    Args:
        dataset: A dataset node of a config, changed in place. Where several nested ones have a
            size, the outermost decides, as it does when they are built.
    """
    for sized in reversed([node for node in dataset_nodes(dataset) if node.get(SIZE_KEY)]):
        for node in dataset_nodes(sized):
            for _, step in dicts_below(node.get('pipeline') or []):
                transform = TRANSFORMS.get(step['type']) if 'type' in step else None
                if transform and SIZE_KEY in signature_of(transform).names:
                    step[SIZE_KEY] = sized[SIZE_KEY]


def places_with(cfg: Mapping[str, Any], key: str) -> list[str]:
    """Return the dotted paths at which a config has a key, at most three.

    What validation and test have as well as training is named for training only.
    """
    found = [f'{place}.{key}' for place, node in dicts_below(cfg) if place and key in node]
    found = [path for path in found if path.split('.')[0] in TOP_LEVEL_KEYS]
    trained = [path for path in found if not path.startswith(('val_', 'test_', 'tta_'))]
    return (trained or found)[:_MAX_PLACES]
