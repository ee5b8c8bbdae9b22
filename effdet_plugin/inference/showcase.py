"""Predictions beside ground truth: one picture of how well a detector does."""

from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage, read_image
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.draw import Drawable, side_by_side, stack


def showcase(detector: Detector, coco: COCO, image_dir: Path, count: int = 3) -> RGBImage:
    """Draw what is found beside what is there, on the pictures with the most classes.

    Args:
        detector: Its ``score_thr`` decides what is drawn.
        coco: Annotations; categories are matched to the detector's classes by name.
        image_dir: Folder of its files.
        count: Number of pictures.

    Returns:
        One picture, a row for each.

    Raises:
        DatasetError: There are no pictures, or a class is unknown to the detector.
    """
    image_ids = sorted(coco.getImgIds(), key=lambda image_id: _richness(coco, image_id))
    if not image_ids:
        raise DatasetError(f'no pictures for {image_dir} in the annotations')
    rows = []
    for record in coco.loadImgs(image_ids[: -count - 1 : -1]):
        image = read_image(image_dir / record['file_name'])
        (sample,) = detector(image)
        truth = _truth(coco, record['id'], detector.classes)
        rows.append(
            side_by_side(image, Drawable.of(sample.pred_instances), truth, detector.classes)
        )
    return stack(rows)


def _richness(coco: COCO, image_id: int) -> tuple[int, int]:
    """Return how much there is to see: classes, then objects."""
    annotations = coco.imgToAnns[image_id]
    return len({one['category_id'] for one in annotations}), len(annotations)


def _truth(coco: COCO, image_id: int, classes: tuple[str, ...]) -> Drawable:
    """Return the boxes of a picture, crowds left out."""
    annotations = [one for one in coco.imgToAnns[image_id] if not one.get('iscrowd')]
    names = [coco.cats[one['category_id']]['name'] for one in annotations]
    unknown = set(names) - set(classes)
    if unknown:
        raise DatasetError(f'the detector knows no class {min(unknown)!r}')
    boxes = np.array([one['bbox'] for one in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Drawable(boxes, np.array([classes.index(name) for name in names], np.int64))
