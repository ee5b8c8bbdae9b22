"""Walk over the dataset nodes of a config, through wrappers of any depth.

A wrapper has its dataset under ``dataset`` (``RepeatDataset``, ``EfficientDetDataset``) or several
under ``datasets`` (``ConcatDataset``); a source has neither and reads files.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mmdet.registry import DATASETS


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
