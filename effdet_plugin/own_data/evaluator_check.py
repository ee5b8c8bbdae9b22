"""Checks that an evaluator measures on the images and classes of its dataset."""

import os
from pathlib import Path
from typing import Any

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.config import Config

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_json
from effdet_plugin.own_data.coco import dict_entries


def check_evaluators(cfg: Config, name: str, path: Path, classes: tuple[str, ...]) -> None:
    """Compare the json of COCO evaluators with their dataset's.

    mmdet evaluates all images of the evaluator's json: those that the dataset has not count as
    missed, and results for others stop it after the first epoch. Another file of the same images
    and classes is fine.

    Args:
        cfg: A config.
        name: ``val_evaluator`` or ``test_evaluator``.
        path: The dataset's json.
        classes: Its names in the config.

    Raises:
        DatasetError: The images or the order of the classes differ.
    """
    evaluators = cfg.get(name) or []
    for one in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
        metric = METRICS.get(one.get('type'))
        other = Path(str(one.get('ann_file') or ''))
        is_coco = isinstance(metric, type) and issubclass(metric, CocoMetric)
        if is_coco and other.is_file() and not os.path.samefile(other, path):
            _compare(path, other, f'{name}.ann_file', classes)


def _compare(path: Path, other: Path, key: str, classes: tuple[str, ...]) -> None:
    here, there = (_content(file, classes) for file in (path, other))
    remedy = f'set {key} to the file of the dataset'
    missing = [one for one in here[0] if here[0][one] != there[0].get(one)]
    if missing:
        raise DatasetError(
            f'{other} ({key}): {len(missing)} of the {len(here[0])} images of {path} are not in '
            f'it, such as id {missing[0]} ({here[0][missing[0]]}): {remedy}'
        )
    if more := len(there[0]) - len(here[0]):
        raise DatasetError(
            f'{other} ({key}): has {more} images that {path} has not, which would count as '
            f'missed: {remedy}'
        )
    if here[1] != there[1]:
        raise DatasetError(
            f"{other} ({key}): has the config's classes as {', '.join(there[1][:4]) or '(none)'}, "
            f'{path} as {", ".join(here[1][:4])}: {remedy}'
        )


def _content(path: Path, classes: tuple[str, ...]) -> tuple[dict[Any, str], list[str]]:
    """Return names of image files by id, and the config's classes in the order of a json."""
    document: Any = read_json(path)
    document = document if isinstance(document, dict) else {}
    images = {
        str(one.get('id')): os.path.basename(str(one.get('file_name')))
        for one in dict_entries(document, 'images')
    }
    names = [str(one.get('name')) for one in dict_entries(document, 'categories')]
    return images, [name for name in names if name in classes]
