"""COCO jsons that mmdet would misread: whether one is, and a copy that it reads right."""

import os
from numbers import Real
from pathlib import Path
from typing import Any

from effdet_plugin.own_data.coco import category_name, dict_entries
from effdet_plugin.own_data.dataset import DatasetDescription
from effdet_plugin.own_data.write import WRITTEN_INFO, annotation_entries

_SIDES = ('width', 'height')


def count_misread(document: dict[str, Any]) -> int:
    """Return how many boxes and images of a COCO json mmdet or pycocotools would not read.

    They skip a box whose ``area`` is 0, count one whose id is 0 as never found, compare ids as
    written, and stop with a traceback where ``area``, ``iscrowd``, ``bbox`` or the size of an image
    is absent.

    Args:
        document: The json; damage that stops a training is another matter.
    """
    images = dict_entries(document, 'images')
    annotations = dict_entries(document, 'annotations')
    image_ids = {_id(image) for image in images}
    categories = dict_entries(document, 'categories')
    category_ids = {_id(category) for category in categories}
    double_ids = len(annotations) - len({_id(annotation) for annotation in annotations})
    return (
        double_ids
        + sum(_id(category) is None for category in categories)
        + sum(
            _id(image) is None or not all(map(_is_number, map(image.get, _SIDES)))
            for image in images
        )
        + sum(
            _id(annotation) in (None, 0)
            or not _is_read(annotation)
            or _id(annotation, 'image_id') not in image_ids
            or _id(annotation, 'category_id') not in category_ids
            for annotation in annotations
        )
    )


def mended(
    document: dict[str, Any], description: DatasetDescription, folder: Path
) -> dict[str, Any]:
    """Return a copy of a COCO json with the boxes, areas and sizes of its description.

    Ids of categories and other keys of the annotations (masks) stay.

    Args:
        document: The json.
        description: What was read from it, as its training split.
        folder: ``file_name`` is relative to it.
    """
    originals = {_id(one): one for one in dict_entries(document, 'annotations')}
    of_zero = max((key for key in originals if isinstance(key, int)), default=0) + 1
    originals[of_zero] = originals.get(0, {})  # the id that a box of id 0 gets
    categories = [one for one in dict_entries(document, 'categories') if _id(one) is not None]
    category_ids: dict[str, Any] = {}
    for category in categories:
        category_ids.setdefault(category_name(category), category.get('id'))
    ids = [category_ids[name] for name in description.classes]
    annotations = []
    for image in description.train:
        for entry in annotation_entries(image):
            original = originals.get(entry['id'], {})
            # Ids that were there twice are new ones.
            known = original if original.get('image_id') == image.id else {}
            category_id = ids[entry['category_id'] - 1]
            annotations.append({**known, **entry, 'category_id': category_id})
    images = [
        {
            'id': image.id,
            'file_name': os.path.relpath(image.path, folder),
            'width': image.width,
            'height': image.height,
        }
        for image in description.train
    ]
    parts = {'images': images, 'annotations': annotations, 'categories': categories}
    return {'info': WRITTEN_INFO, **parts}


def _is_read(annotation: dict[str, Any]) -> bool:
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return False
    area: Any = annotation.get('area')
    has_extent = box[2] > 0 and box[3] > 0
    crowd = annotation.get('iscrowd')
    return (
        _is_number(area) and (area > 0 or not has_extent) and crowd is not None and crowd in (0, 1)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _id(entry: dict[str, Any], key: str = 'id') -> object:
    """Return an id that can be compared; None for one that cannot."""
    value = entry.get(key)
    return value if isinstance(value, int | str) else None
