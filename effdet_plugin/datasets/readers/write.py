"""Writes a description as COCO json: whole or not at all, and never into the data folder."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from effdet_plugin.datasets.readers.description import DatasetDescription, Image, Split

#: Marks our own files.
WRITTEN_INFO = {'description': 'written by effdet_plugin'}
#: Digits after the point of a pixel: below what float32 boxes resolve.
_DIGITS = 4


def image_root(description: DatasetDescription) -> Path:
    """The folder that all pictures are in."""
    folders = {image.path.parent for split in description.splits.values() for image in split or []}
    return Path(os.path.commonpath(folders)) if folders else description.root


def write_coco(description: DatasetDescription, folder: Path) -> dict[str, Path]:
    """Write one COCO json for each split.

    Args:
        description: What to write.
        folder: Made if it is not there; ``train.json``, ``val.json`` and perhaps ``test.json``
            are written into it. A file with the same content is left as it is.

    Returns:
        The path of each split's json. ``file_name`` is relative to :func:`image_root`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = image_root(description)
    paths = json_paths(description, folder)
    for name, path in paths.items():
        split = description.splits[name]
        document = coco_document(split or Split([]), description.classes, root)
        _write_whole(path, json.dumps(document).encode())
    return paths


def json_paths(description: DatasetDescription, folder: Path) -> dict[str, Path]:
    """Where :func:`write_coco` puts the splits."""
    present = (name for name, split in description.splits.items() if split is not None)
    return {name: folder.absolute() / f'{name}.json' for name in present}


def coco_document(split: Split, classes: tuple[str, ...], root: Path) -> dict[str, Any]:
    """The COCO json of a split: category ids from 1 in the order of the classes.

    Args:
        split: Pictures and boxes.
        classes: Their names.
        root: The folder that ``file_name`` starts from.
    """
    return {
        'info': WRITTEN_INFO,
        'images': [
            {
                'id': image.id,
                'file_name': image.path.relative_to(root).as_posix(),
                'width': image.width,
                'height': image.height,
            }
            for image in split
        ],
        'annotations': [entry for image in split for entry in _annotations(image)],
        'categories': [{'id': at, 'name': name} for at, name in enumerate(classes, start=1)],
    }


def _annotations(image: Image) -> list[dict[str, Any]]:
    rows = zip(
        image.annotation_ids.tolist(),
        image.labels.tolist(),
        image.boxes.tolist(),
        image.areas.tolist(),
        image.crowd.tolist(),
        strict=True,
    )
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


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside the target and rename; several processes may do so at the same time."""
    if path.is_file() and path.read_bytes() == content:
        return
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
