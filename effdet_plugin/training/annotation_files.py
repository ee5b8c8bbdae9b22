"""Looks at the annotation files that a config names, before minutes go into building."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from effdet_plugin.errors import ConfigError, DatasetError

LOADERS = ('train_dataloader', 'val_dataloader')


def check_annotation_files(cfg: Config, loaders: Sequence[str] = LOADERS) -> None:
    """Check that files and pictures are there and that their classes are the config's.

    mmdet passes over boxes of unknown categories, numbers classes by the file's order whatever
    order the config gives them, and meets a missing picture in the middle of an epoch.

    Args:
        cfg: Its data sets in local files are looked at, inside any wrappers.
        loaders: Sections of the config.

    Raises:
        DatasetError: A file or picture is missing, or the file holds what mmdet would pass over.
        ConfigError: The head predicts fewer classes than the data has.
    """
    for loader in loaders:
        for node in _data_sets((cfg.get(loader) or {}).get('dataset')):
            if node.get('backend_args') or '://' in str(node.get('ann_file', '')):
                continue  # not in local files
            _check_data_set(node, in_training=loader == 'train_dataloader')
            _check_head(cfg, _classes(node))


def _data_sets(node: Any) -> Iterator[ConfigDict]:
    """Yield the data sets with an annotation file below a node of wrappers."""
    if not isinstance(node, dict):
        return
    for inner in [node.get('dataset'), *(node.get('datasets') or [])]:
        yield from _data_sets(inner)
    if node.get('ann_file'):
        yield node


def _classes(node: ConfigDict) -> tuple[str, ...]:
    """Return the class names of a data set: the config's, else its type's."""
    classes = (node.get('metainfo') or {}).get('classes')
    classes = classes or getattr(DATASETS.get(node.type), 'METAINFO', {}).get('classes') or ()
    return (classes,) if isinstance(classes, str) else tuple(classes)


def _check_data_set(node: ConfigDict, in_training: bool) -> None:
    path = _join(node, node.ann_file)
    if not path.is_file():
        raise DatasetError(
            f'{path}: there is no such annotation file; put the data there, set data_root and '
            f'ann_file, or give --data DIR'
        )
    if not issubclass(DATASETS.get(node.type), CocoDataset):
        return
    document = _read(path)
    _check_categories(path, document, _classes(node), in_training)
    _check_pictures(path, document, _join(node, (node.get('data_prefix') or {}).get('img', '')))


def _join(node: ConfigDict, name: str) -> Path:
    """Return a path of a data set as mmengine makes it."""
    return Path(node.get('data_root') or '') / name


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path}: cannot be read as json: {error}') from error
    if not isinstance(document, dict) or 'images' not in document:
        raise DatasetError(f'{path}: has no "images", so it is no COCO json')
    return document


def _check_categories(
    path: Path, document: dict[str, Any], classes: tuple[str, ...], in_training: bool
) -> None:
    names = {category['id']: category['name'] for category in document.get('categories', [])}
    shared = [name for name in names.values() if name in classes]
    if not shared:
        raise DatasetError(
            f"{path}: has the classes {_some(names.values())} and none of the config's "
            f'{_some(classes)}: set metainfo.classes, or give --data'
        )
    if in_training and shared != [name for name in classes if name in shared]:
        raise DatasetError(
            f'{path}: mmdet numbers classes in the order of the file, which is not that of '
            f'metainfo.classes: write classes={tuple(shared)}'
        )
    for annotation in document.get('annotations', []):
        if annotation.get('category_id') not in names:
            raise DatasetError(
                f'{path}: annotation {annotation.get("id")} is of category '
                f'{annotation.get("category_id")}, which is not among its categories'
            )


def _check_pictures(path: Path, document: dict[str, Any], folder: Path) -> None:
    names = [image.get('file_name', '') for image in document['images']]
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise DatasetError(
            f'{folder / missing[0]}: the picture is missing ({len(missing)} of the {len(names)} '
            f'that {path} names are)'
        )


def _check_head(cfg: Config, classes: tuple[str, ...]) -> None:
    head = cfg.model.get('bbox_head')
    count = head.get('num_classes') if isinstance(head, dict) else None
    if count is not None and count < len(classes):
        raise ConfigError(
            f'model.bbox_head.num_classes is {count}, but the data set has {len(classes)} classes '
            f'({_some(classes)}): set num_classes, or metainfo.classes'
        )


def _some(names: Any) -> str:
    names = list(names)
    return ', '.join(map(str, names[:4])) + (', ...' if len(names) > 4 else '') or '(none)'
