"""A ground truth of three images with hostile names, and detections whose facts are known."""

import io
from contextlib import redirect_stdout
from typing import Any

from mmdet.datasets.api_wrappers import COCO

CLASSES = ('<b>cat</b>', '_$dog$', 'bird')  # no bird is in the truth
IDS: list[int | None] = [4, 9, None]


def make_coco(images: list[str], boxes: list[tuple[int, int, list[float], int]]) -> COCO:
    """COCO of images of 100x100 and boxes ``(image, category, xywh, iscrowd)``."""
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(
            images=[
                dict(id=i, file_name=n, width=100, height=100) for i, n in enumerate(images, 10)
            ],
            annotations=[
                dict(id=i, image_id=10 + m, category_id=c, bbox=b, area=b[2] * b[3], iscrowd=crowd)
                for i, (m, c, b, crowd) in enumerate(boxes, 1)
            ],
            categories=[dict(id=4, name=CLASSES[0]), dict(id=9, name=CLASSES[1])],
        )
        coco.createIndex()
    return coco


def found(image: int, category: int, bbox: list[float], score: float) -> dict[str, Any]:
    """A detection in COCO's form."""
    return dict(image_id=10 + image, category_id=category, bbox=bbox, score=score)
