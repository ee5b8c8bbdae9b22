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

    mmdet passes over boxes of unknown categories, numbers those that the file has from 0 by their
    order in it, whatever place the config gives them, and meets a missing picture in the middle of
    an epoch. A head of more classes than the data has would train, and its checkpoint be refused.

    Args:
        cfg: Its data sets in local files are looked at, inside any wrappers.
        loaders: Sections of the config.

    Raises:
        DatasetError: A file or picture is missing, or the file holds what mmdet would pass over.
        ConfigError: The head predicts another number of classes than the config names.
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
    if in_training:
        _check_labels(path, tuple(shared), classes)
    for annotation in document.get('annotations', []):
        if annotation.get('category_id') not in names:
            raise DatasetError(
                f'{path}: annotation {annotation.get("id")} is of category '
                f'{annotation.get("category_id")}, which is not among its categories'
            )


def _check_labels(path: Path, shared: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Refuse a file whose categories mmdet would give labels of other classes."""
    for label, name in enumerate(shared):
        if classes[label : label + 1] != (name,):
            raise DatasetError(
                f'{path}: mmdet numbers the categories of a file by their order in it, so {name!r} '
                f'gets label {label}, which is not its place in metainfo.classes: write '
                f'classes={shared} there and num_classes={len(shared)}, or give --data'
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
    parts = {'model': cfg.model, 'model.roi_head': cfg.model.get('roi_head') or {}}
    for name, part in parts.items():
        head = part.get('bbox_head')
        count = head.get('num_classes') if isinstance(head, dict) else None
        # COCO's 90 slots are 90 names; 90 outputs for its 80 names would be numbered otherwise.
        if count is not None and classes and count != len(classes):
            raise ConfigError(
                f'{name}.bbox_head.num_classes is {count}, but the data set has {len(classes)} '
                f'classes ({_some(classes)}): set num_classes, or metainfo.classes'
            )


def _some(names: Any) -> str:
    names = list(names)
    return ', '.join(map(str, names[:4])) + (', ...' if len(names) > 4 else '') or '(none)'
