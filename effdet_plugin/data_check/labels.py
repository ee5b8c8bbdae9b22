"""What the boxes of a dataset have: counts, doubles."""

from typing import Any, NamedTuple

import numpy as np

from effdet_plugin.data_check.images import neighbours
from effdet_plugin.own_data.dataset import DatasetDescription, Image, Split

TWICE_IOU = 0.85  # above it, two boxes of an image are one object
SIZES = {'small': 32.0**2, 'medium': 96.0**2, 'large': float('inf')}  # square pixels, as in COCO


class Pair(NamedTuple):
    """Two boxes of an image by their places, the earlier first."""

    first: int
    second: int
    iou: float


def box_pairs(image: Image) -> list[Pair]:
    """Return the pairs of boxes, crowds left out, whose IoU is above `TWICE_IOU`.

    Args:
        image: With any number of boxes; most pairs are told apart by their left sides.
    """
    targets = np.flatnonzero(~image.crowd)
    order = targets[np.argsort(image.boxes[targets, 0], kind='stable')]
    boxes = image.boxes[order]
    widths = boxes[:, 2] - boxes[:, 0]
    areas = widths * (boxes[:, 3] - boxes[:, 1])
    found = []
    # The IoU is at most overlap / union of the x-intervals, which bounds how far they are apart.
    for one, other in neighbours(boxes[:, 0], widths * (1 / TWICE_IOU - 1)):
        sides = np.minimum(boxes[one, 2:], boxes[other, 2:]) - np.maximum(
            boxes[one, :2], boxes[other, :2]
        )
        overlap = sides.clip(min=0).prod(axis=1)
        iou = overlap / (areas[one] + areas[other] - overlap)
        for place in np.flatnonzero(iou > TWICE_IOU):
            first, second = sorted((int(order[one[place]]), int(order[other[place]])))
            found.append(Pair(first, second, float(iou[place])))
    return sorted(found)


def class_table(description: DatasetDescription) -> list[dict[str, Any]]:
    """Return for each class its name and number of boxes, images, boxes by size, and crowds."""
    images = [image for split in description.splits.values() for image in split or []]
    count = len(description.classes)
    rows: dict[str, Any] = {key: np.zeros(count, np.int64) for key in ('boxes', 'images', *SIZES)}
    rows['crowd'] = np.zeros(count, np.int64)
    for image in images:
        labels = image.labels[~image.crowd]
        sides = image.boxes[~image.crowd, 2:] - image.boxes[~image.crowd, :2]
        bands = np.searchsorted(list(SIZES.values()), sides.prod(axis=1), side='right')
        rows['boxes'] += np.bincount(labels, minlength=count)
        rows['images'][np.unique(labels)] += 1
        rows['crowd'] += np.bincount(image.labels[image.crowd], minlength=count)
        for band, size in enumerate(SIZES):
            rows[size] += np.bincount(labels[bands == band], minlength=count)
    columns = {'name': list(description.classes)} | {key: row.tolist() for key, row in rows.items()}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def split_table(description: DatasetDescription) -> list[dict[str, Any]]:
    """Return for each split its name and number of images, images without objects, and boxes."""
    return [_split_row(name, split) for name, split in description.splits.items() if split]


def _split_row(name: str, split: Split) -> dict[str, Any]:
    crowd = sum(int(image.crowd.sum()) for image in split)
    empty = sum(not len(image.boxes) for image in split)
    return {
        'name': name,
        'images': len(split),
        'empty': empty,
        'boxes': split.num_targets,
        'crowd': crowd,
    }
