"""Writes a description as COCO json: atomically, and never into the data folder."""

import json
import os
from pathlib import Path
from typing import Any

from effdet_plugin.files import write_atomically
from effdet_plugin.own_data.dataset import DatasetDescription, Image, Split

WRITTEN_INFO = {'description': 'written by effdet_plugin'}  # marks our own files
_DIGITS = 4  # after the point of a pixel: below what float32 boxes resolve


def image_root(description: DatasetDescription) -> Path:
    """Return the folder that all images are in."""
    folders = {image.path.parent for split in description.splits.values() for image in split or []}
    return Path(os.path.commonpath(folders)) if folders else description.root


def write_coco(
    description: DatasetDescription, folder: Path, info: dict[str, str] = WRITTEN_INFO
) -> dict[str, Path]:
    """Write one COCO json for each split; the category ids count from 1 in the classes' order.

    Args:
        description: What to write.
        folder: ``train.json``, ``val.json`` and possibly ``test.json`` are written into it. It is
            made if needed; a file with the same content is left as it is.
        info: The jsons' "info". The default marks files that are not read as data again.

    Returns:
        The path of each split's json. ``file_name`` is relative to `image_root`.
    """
    root = image_root(description)
    paths = json_paths(description, folder)
    for name, path in paths.items():
        images = (description.splits[name] or Split([])).images
        document = {
            'info': info,
            'images': [
                {
                    'id': image.id,
                    'file_name': image.path.relative_to(root).as_posix(),
                    'width': image.width,
                    'height': image.height,
                }
                for image in images
            ],
            'annotations': [entry for image in images for entry in annotation_entries(image)],
            'categories': [
                {'id': number, 'name': name}
                for number, name in enumerate(description.classes, start=1)
            ],
        }
        write_atomically(path, json.dumps(document))
    return paths


def json_paths(description: DatasetDescription, folder: Path) -> dict[str, Path]:
    """Return where `write_coco` puts the splits."""
    present = (name for name, split in description.splits.items() if split is not None)
    return {name: folder.absolute() / f'{name}.json' for name in present}


def annotation_entries(image: Image) -> list[dict[str, Any]]:
    """Return the boxes of an image as entries of a COCO json; category ids count from 1."""
    columns = (image.annotation_ids, image.labels, image.boxes, image.areas, image.crowd)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {
            'id': number,
            'image_id': image.id,
            'category_id': label + 1,
            'bbox': [round(side, _DIGITS) for side in (x1, y1, x2 - x1, y2 - y1)],
            'area': round(area, _DIGITS),
            'iscrowd': int(crowd),
        }
        for number, label, (x1, y1, x2, y2), area, crowd in rows
    ]
