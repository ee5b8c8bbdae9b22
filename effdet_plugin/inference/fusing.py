"""Result files of several models, fused into one."""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from effdet_plugin.engine.atomic import replacing
from effdet_plugin.errors import DatasetError
from effdet_plugin.evaluation.coco_twelve import NAMES, evaluate_rows
from effdet_plugin.ops.wbf import IOU_THRESHOLD, fuse_boxes

Row = dict[str, Any]
_KEYS = ('image_id', 'category_id', 'bbox', 'score')


def fuse_files(
    paths: Sequence[Path],
    out: Path,
    iou_threshold: float = IOU_THRESHOLD,
    max_per_image: int = 100,
    labels_below: int | None = None,
) -> int:
    """Fuse COCO result files of several models on the same pictures.

    Args:
        paths: Result files, as ``tools/test.py --out`` writes them.
        out: The fused one, in the same form.
        iou_threshold: From which IoU on boxes are the same object.
        max_per_image: Detections that are kept of each picture.
        labels_below: See `effdet_plugin.ops.wbf.fuse_boxes`; the labels here are category ids.

    Returns:
        The number of fused detections.

    Raises:
        DatasetError: A file is not in COCO's results form, or two have no picture in common.
    """
    files = [read_rows(path) for path in paths]
    pictures = [{row['image_id'] for row in rows} for rows in files]
    for path, own in zip(paths[1:], pictures[1:], strict=True):
        if own and pictures[0] and not own & pictures[0]:
            raise DatasetError(f'{path}: has no picture in common with {paths[0]}')
    fused = fuse_rows(files, iou_threshold, max_per_image, labels_below)
    with replacing(out) as part:
        part.write_text(json.dumps(fused))
    return len(fused)


def evaluate_files(
    ann_file: Path, results: Sequence[Path]
) -> Iterator[tuple[Path, dict[str, float]]]:
    """Evaluate result files against one ground truth.

    Args:
        ann_file: COCO json.
        results: In COCO's results form.

    Returns:
        Each file with COCO's 12 numbers.

    Raises:
        DatasetError: A file cannot be read.
    """
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            coco = COCO(str(ann_file))
    except (OSError, ValueError) as error:
        raise DatasetError(f'{ann_file}: cannot be read as COCO json: {error}') from error
    for path in results:
        stats = evaluate_rows(coco, read_rows(path), sorted(coco.imgs)).stats
        yield path, dict(zip(NAMES, map(float, stats), strict=True))


def read_rows(path: Path) -> list[Row]:
    """Read a file of COCO's results form.

    Raises:
        DatasetError: It cannot be read, or a row lacks something.
    """
    try:
        rows = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path}: cannot be read as json: {error}') from error
    if not isinstance(rows, list):
        raise DatasetError(f'{path}: is no list of detections; tools/test.py --out writes one')
    for number, row in enumerate(rows):
        missing = [key for key in _KEYS if not isinstance(row, dict) or key not in row]
        if missing:
            raise DatasetError(f'{path}: detection {number} has no {missing[0]!r}')
    return rows


def fuse_rows(
    models: Sequence[Sequence[Row]],
    iou_threshold: float = IOU_THRESHOLD,
    max_per_image: int = 100,
    labels_below: int | None = None,
) -> list[Row]:
    """Fuse the detections of several models, picture by picture.

    Args:
        models: Of each model its rows: ``image_id``, ``category_id``, ``bbox`` (x, y, width,
            height) and ``score``. Fused by descending score, at equal scores in the models' order.
        iou_threshold: See `fuse_files`.
        max_per_image: See `fuse_files`.
        labels_below: See `fuse_files`.
    """
    of_image: dict[Any, list[Row]] = {}
    for rows in models:
        for row in rows:
            of_image.setdefault(row['image_id'], []).append(row)
    fused: list[Row] = []
    for image_id, rows in of_image.items():
        rows.sort(key=lambda row: -row['score'])
        boxes = np.array([row['bbox'] for row in rows], dtype=np.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([row['score'] for row in rows], dtype=np.float64)
        labels = np.array([row['category_id'] for row in rows])
        boxes, scores, labels = fuse_boxes(
            boxes, scores, labels, len(models), iou_threshold, labels_below
        )
        boxes[:, 2:] -= boxes[:, :2]
        best = zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        fused += [
            {'image_id': image_id, 'category_id': label, 'bbox': box, 'score': score}
            for box, score, label in list(best)[:max_per_image]
        ]
    return fused
