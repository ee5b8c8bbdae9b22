"""Writes a cleaned copy of a dataset; the original is only read."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from effdet_plugin.data_check.report import Report, check_apart
from effdet_plugin.data_check.sheets import CopiedImage
from effdet_plugin.errors import DatasetError
from effdet_plugin.files import write_errors
from effdet_plugin.own_data.dataset import DatasetDescription, Image, Split
from effdet_plugin.own_data.write import image_root, write_coco

_INFO = {'description': 'cleaned copy by effdet_plugin'}


def write_clean_copy(report: Report, folder: Path) -> dict[str, int]:
    """Write the images and boxes that are sound, as COCO jsons with copies of the image files.

    Images that cannot be read, images that are there twice (of two splits, training's is left
    out), boxes without extent or outside and the second of two boxes of one object are left out;
    boxes that reach outside are clipped. Classes keep their names and order.

    Args:
        report: Of the original.
        folder: New or empty; ``images/`` and ``annotations/train.json`` and so on go there.

    Returns:
        Number of ``images`` and ``boxes`` written, and of ``copies`` and ``twice`` left out.

    Raises:
        DatasetError: The folder has files or lies in the original's, or no image is left.
    """
    check_apart(report, folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise DatasetError(f'{folder}: is not empty; give a new folder for the cleaned copy')
    twice: dict[int, set[int]] = {}
    for image, first, second in report.twice:
        if image.labels[first] == image.labels[second]:
            twice.setdefault(id(image), set()).add(second)
    copies = {id(_left_out(copy)) for copy in report.copies}
    original = report.description
    root = image_root(original)
    splits: dict[str, Split | None] = {}
    for name, split in original.splits.items():
        kept = [image for image in split or [] if id(image) not in copies]
        splits[name] = split and Split(
            [_copied(image, root, folder, twice.get(id(image), ())) for image in kept]
        )
    cleaned = replace(original, root=folder, splits=splits)
    if not cleaned.train.images:
        raise DatasetError(f'{report.data}: no training image is left, so no copy is written')
    _copy_images(original, copies, root, folder)
    write_coco(cleaned, folder / 'annotations', _INFO)
    every = [image for split in splits.values() for image in split or []]
    return {
        'images': len(every),
        'boxes': sum(len(image.boxes) for image in every),
        'copies': len(copies),
        'twice': sum(map(len, twice.values())),
    }


def _left_out(copy: CopiedImage) -> Image:
    """Return the one of two equal images that is left out."""
    from_training = copy.split.startswith('train') and copy.split != copy.other_split
    return copy.image if from_training else copy.other


def _copied(image: Image, root: Path, folder: Path, left_out: Iterable[int]) -> Image:
    """Return an image of the copy, without some of its boxes."""
    kept = np.setdiff1d(np.arange(len(image.boxes)), list(left_out))
    rows = {
        key: getattr(image, key)[kept]
        for key in ('boxes', 'labels', 'crowd', 'difficult', 'annotation_ids', 'areas')
    }
    return replace(image, path=_target(image, root, folder), **rows)


def _target(image: Image, root: Path, folder: Path) -> Path:
    return folder.absolute() / 'images' / image.path.relative_to(root)


def _copy_images(original: DatasetDescription, copies: set[int], root: Path, folder: Path) -> None:
    for split in original.splits.values():
        for image in split or []:
            target = _target(image, root, folder)
            if id(image) not in copies and not target.exists():
                with write_errors(folder):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(image.path, target)
