"""Predictions and ground truth side by side, as one image."""

from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage
from effdet_plugin.images import read_image
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.draw import Drawable, side_by_side, stack


def showcase(detector: Detector, coco: COCO, image_dir: Path, count: int = 3) -> RGBImage:
    """Draw predictions beside the ground truth, for the images with the most classes.

    Args:
        detector: Detections above its ``score_thr`` are drawn.
        coco: Annotations; categories are matched to the detector's classes by name.
        image_dir: Folder of the image files.
        count: Number of images.

    Returns:
        One image (H, W, 3), a row for each.

    Raises:
        DatasetError: There are no images, or a class is unknown to the detector.
    """
    image_ids = sorted(coco.getImgIds(), key=lambda image_id: _richness(coco, image_id))
    if not image_ids:
        raise DatasetError(f'no images of {image_dir} in the annotations')
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
    """Return the number of classes, then of objects."""
    annotations = coco.imgToAnns[image_id]
    return len({one['category_id'] for one in annotations}), len(annotations)


def _truth(coco: COCO, image_id: int, classes: tuple[str, ...]) -> Drawable:
    """Return the ground-truth boxes of an image, without crowds."""
    annotations = [one for one in coco.imgToAnns[image_id] if not one.get('iscrowd')]
    names = [coco.cats[one['category_id']]['name'] for one in annotations]
    unknown = set(names) - set(classes)
    if unknown:
        raise DatasetError(f'the detector knows no class {min(unknown)!r}')
    boxes = np.array([one['bbox'] for one in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Drawable(boxes, np.array([classes.index(name) for name in names], np.int64))
