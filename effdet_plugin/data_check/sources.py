"""Describes the data that a config names, with the readers of ``--data``."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config

from effdet_plugin.config.dataset_nodes import class_names, source_nodes
from effdet_plugin.errors import DatasetError, UserError
from effdet_plugin.files import read_json
from effdet_plugin.own_data import check_annotation_files, read_dataset
from effdet_plugin.own_data.coco import CocoFile, dict_entries, read_coco
from effdet_plugin.own_data.dataset import DatasetDescription
from effdet_plugin.own_data.find_images import Tree, list_tree
from effdet_plugin.own_data.findings import Findings
from effdet_plugin.own_data.normalise import describe

Images = TypeVar('Images')
_Place = tuple[Path, Path]  # json, folder of the images
_SPLITS = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'test'}


class _Source(NamedTuple):
    """A json of a config."""

    split: str
    path: Path
    images: Path
    classes: tuple[str, ...]


class _FullPaths:
    """Finds images by their full paths, as mmdet does."""

    def locate(self, name: str, near: Path, row: str, split: str | None = None) -> Path:
        """Return the path of a name."""
        return Path(name)

    def without_contested(self, images: Images) -> Images:
        """Return the images: none was found by a part of its name."""
        return images


def describe_config(cfg: Config) -> DatasetDescription:
    """Return the description of the data that a config trains, validates and tests on.

    Args:
        cfg: With COCO jsons (or trees of Pascal VOC) in local files. Several sources of a split
            are named ``train``, ``train 2``; a source that has been named is not read again.

    Raises:
        DatasetError: A file is missing or damaged, or there are no local files.
    """
    sources: dict[_Place, _Source] = {}
    others: list[Path] = []
    for split, node in _named_sources(cfg):
        root = Path(node.get('data_root') or '').absolute()
        if issubclass(DATASETS.get(node.type), CocoDataset):
            images = root / (node.get('data_prefix') or {}).get('img', '')
            place = root / node.ann_file, images
            sources.setdefault(place, _Source(split, *place, class_names(node)))
        else:
            others.append(root)
    if not sources:
        if not others:
            raise DatasetError('the config names no local annotation files: give a folder or json')
        return read_dataset(others[0])
    return _describe_jsons(cfg, list(sources.values()))


def _describe_jsons(cfg: Config, sources: list[_Source]) -> DatasetDescription:
    files = {source.split: _file(source) for source in sources}
    folders = [source.images for source in sources if source.images.is_dir()]
    listed = dict.fromkeys(path for folder in folders for path in list_tree(folder).images)
    root = Path(os.path.commonpath([*folders, *(source.path.parent for source in sources)]))
    ordered = dict(sorted(files.items(), key=lambda one: not one[0].startswith('train')))
    raw = read_coco(Tree(root, list(listed)), ordered, _FullPaths())
    for source in sources:
        _compare_classes(source, files[source.split], raw.findings)
    description = describe(raw)
    if any(finding.is_error for finding in description.findings):
        return description
    try:  # a copy: it names mended files where some are needed
        check_annotation_files(cfg.copy())
    except UserError as error:
        raw.findings.add('config_mismatch', Path(cfg.filename or 'the config').name, '', error)
    return replace(description, findings=raw.findings.all())


def _named_sources(cfg: Config) -> Iterator[tuple[str, Any]]:
    for loader, name in _SPLITS.items():
        nodes = list(source_nodes((cfg.get(loader) or {}).get('dataset')))
        local = [
            node
            for node in nodes
            if node.get('ann_file') and not node.get('backend_args') and '://' not in node.ann_file
        ]
        for place, node in enumerate(local, start=1):
            yield (name if place == 1 else f'{name} {place}'), node


def _compare_classes(source: _Source, file: CocoFile, findings: Findings) -> None:
    """Note names that only the config or only the json has: mmdet passes over both."""
    names = {one.get('id'): one.get('name') for one in dict_entries(file.document, 'categories')}
    used = Counter(
        str(names.get(one.get('category_id'))) for one in dict_entries(file.document, 'annotations')
    )
    for name in source.classes:
        if name not in names.values():
            findings.add('class_absent', source.path.name, '', repr(name))
    for name, count in used.items():
        if name in names.values() and name not in source.classes:
            findings.add('class_left_out', source.path.name, '', f'{name!r} ({count} boxes)')


def _file(source: _Source) -> CocoFile:
    """Return a json whose images are named by their full paths, as mmdet finds them."""
    path = source.path
    if not path.is_file():
        raise DatasetError(
            f'{path}: there is no such annotation file; put the data there, or check a folder or '
            'json: tools/check_dataset.py DIR --config CONFIG'
        )
    document = read_json(path)
    if not isinstance(document, dict) or 'images' not in document:
        raise DatasetError(f'{path}: has no "images", so it is no COCO json')
    entries = [
        {**entry, 'file_name': str(source.images / str(entry.get('file_name', '')))}
        for entry in dict_entries(document, 'images')
    ]
    return CocoFile(path, {**document, 'images': entries})
