"""Checks the annotation files that a config names before minutes are spent on building."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from effdet_plugin.config.dataset_nodes import class_names, source_nodes
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.files import read_json
from effdet_plugin.own_data.coco import dict_entries

LOADERS = ('train_dataloader', 'val_dataloader')


def check_annotation_files(cfg: Config, loaders: Sequence[str] = LOADERS) -> None:
    """Check that files and images exist and that their classes are the config's.

    mmdet skips boxes of unknown categories, numbers those that the file has from 0 by their order
    in the file, not by their place in the config, and finds a missing image in the middle of an
    epoch. A head of more classes than the data would train, and its checkpoint be refused.

    Args:
        cfg: Its datasets in local files are checked, inside any wrappers.
        loaders: Sections of the config.

    Raises:
        DatasetError: A file or image is missing, or the file holds what mmdet would skip.
        ConfigError: The head predicts another number of classes than the config names.
    """
    for loader in loaders:
        for node in source_nodes((cfg.get(loader) or {}).get('dataset')):
            is_remote = node.get('backend_args') or '://' in str(node.get('ann_file', ''))
            if node.get('ann_file') and not is_remote:
                _check_source(node, in_training=loader == 'train_dataloader')
                _check_head(cfg, class_names(node))


def _check_source(node: ConfigDict, in_training: bool) -> None:
    root = Path(node.get('data_root') or '')
    path = root / node.ann_file
    if not path.is_file():
        raise DatasetError(
            f'{path}: there is no such annotation file; put the data there, set data_root and '
            f'ann_file, or give --data DIR'
        )
    if not issubclass(DATASETS.get(node.type), CocoDataset):
        return
    document = read_json(path)
    if not isinstance(document, dict) or 'images' not in document:
        raise DatasetError(f'{path}: has no "images", so it is no COCO json')
    _check_categories(path, document, class_names(node), in_training)
    _check_images(path, document, root / (node.get('data_prefix') or {}).get('img', ''))


def _check_categories(
    path: Path, document: dict[str, Any], classes: tuple[str, ...], in_training: bool
) -> None:
    # Ids as written: mmdet compares them as they are, where the reader of own data is tolerant.
    names = {one.get('id'): one.get('name') for one in dict_entries(document, 'categories')}
    shared = tuple(name for name in names.values() if name in classes)
    if not shared:
        raise DatasetError(
            f"{path}: has the classes {_shorten(names.values())} and none of the config's "
            f'{_shorten(classes)}: set metainfo.classes, or give --data'
        )
    for label, name in enumerate(shared if in_training else ()):
        if classes[label : label + 1] != (name,):
            raise DatasetError(
                f'{path}: mmdet numbers the categories of a file by their order in it, so {name!r} '
                f'gets label {label}, which is not its place in metainfo.classes: write '
                f'classes={shared} there and num_classes={len(shared)}, or give --data'
            )
    for annotation in dict_entries(document, 'annotations'):
        if annotation.get('category_id') not in names:
            raise DatasetError(
                f'{path}: annotation {annotation.get("id")} is of category '
                f'{annotation.get("category_id")}, which is not among its categories'
            )


def _check_images(path: Path, document: dict[str, Any], folder: Path) -> None:
    names = [str(image.get('file_name', '')) for image in dict_entries(document, 'images')]
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise DatasetError(
            f'{folder / missing[0]}: the image is missing ({len(missing)} of the {len(names)} '
            f'images of {path})'
        )


def _check_head(cfg: Config, classes: tuple[str, ...]) -> None:
    parts = {'model': cfg.model, 'model.roi_head': cfg.model.get('roi_head') or {}}
    for name, part in parts.items():
        head = part.get('bbox_head')
        count = head.get('num_classes') if isinstance(head, dict) else None
        # COCO's 90 slots are 90 names; 90 outputs for its 80 names would be numbered otherwise.
        if count is not None and classes and count != len(classes):
            raise ConfigError(
                f'{name}.bbox_head.num_classes is {count}, but the dataset has {len(classes)} '
                f'classes ({_shorten(classes)}): set num_classes, or metainfo.classes'
            )


def _shorten(names: Iterable[object]) -> str:
    listed = list(map(str, names))
    return ', '.join(listed[:4]) + (', ...' if len(listed) > 4 else '') or '(none)'
