"""Result files of several models, fused into one."""

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.evaluation.coco_twelve import NAMES, evaluate_rows
from effdet_plugin.files import replacing
from effdet_plugin.ops.wbf import IOU_THR, fuse_boxes

Row = dict[str, Any]


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


# Of each key of a detection: what holds of its value, and in words.
_FORM: dict[str, tuple[Callable[[object], bool], str]] = {
    'image_id': (lambda value: _is_id(value) or isinstance(value, str), 'a whole number or text'),
    'category_id': (_is_id, 'a whole number'),
    'bbox': (_is_box, '4 finite numbers'),
    'score': (_is_number, 'a finite number'),
}


def fuse_files(
    paths: Sequence[Path],
    out: Path,
    iou_threshold: float = IOU_THR,
    max_per_image: int = 100,
    labels_below: int | None = None,
    truth: COCO | None = None,
) -> int:
    """Fuse COCO result files of several models on the same pictures.

    Args:
        paths: Result files, two or more, as ``tools/test.py --out`` writes them.
        out: The fused one, in the same form.
        iou_threshold: From which IoU on boxes are the same object, above 0 and up to 1.
        max_per_image: Detections that are kept of each picture.
        labels_below: See `effdet_plugin.ops.wbf.fuse_boxes`; the labels here are category ids.
        truth: What the files must be detections of, from `read_truth`; None: not checked.

    Returns:
        The number of fused detections.

    Raises:
        ConfigError: There is one file alone, or the threshold is out of range.
        DatasetError: A file is not in COCO's results form, two have no picture or no category in
            common, or one does not fit the ground truth.
    """
    # Not passed on as it is: its own boxes would be averaged, and most often the other one is lost.
    if len(paths) < 2:
        only = ', '.join(map(str, paths)) or 'no file'
        raise ConfigError(f'{only}: nothing to fuse with; give the result files of several models')
    _check_threshold(iou_threshold)
    files = [read_rows(path) for path in paths]
    if truth is not None:
        for path, rows in zip(paths, files, strict=True):
            _check_known(path, rows, truth)
    _check_shared(paths, files)
    fused = fuse_rows(files, iou_threshold, max_per_image, labels_below)
    with replacing(out) as part:
        part.write_text(json.dumps(fused))
    return len(fused)


def read_truth(ann_file: Path) -> COCO:
    """Read the ground truth of result files.

    Args:
        ann_file: COCO json.

    Raises:
        DatasetError: It cannot be read, or is something else.
    """
    truth = COCO()
    truth.dataset = _read_json(ann_file)
    if not isinstance(truth.dataset, dict) or not {'images', 'categories'} <= set(truth.dataset):
        raise DatasetError(
            f'{ann_file}: is no ground truth, which has images, annotations and categories '
            '(a result file is none)'
        )
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            truth.createIndex()
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f'{ann_file}: cannot be read as COCO json of boxes: {error!r}'
        ) from error
    return truth


def evaluate_files(truth: COCO, results: Sequence[Path]) -> Iterator[tuple[Path, dict[str, float]]]:
    """Evaluate result files against one ground truth.

    Args:
        truth: From `read_truth`.
        results: In COCO's results form.

    Returns:
        Each file with COCO's 12 numbers.

    Raises:
        DatasetError: A file cannot be read, or is of other pictures or categories.
    """
    for path in results:
        rows = read_rows(path)
        _check_known(path, rows, truth)
        stats = evaluate_rows(truth, rows, sorted(truth.imgs)).stats
        yield path, dict(zip(NAMES, map(float, stats), strict=True))


def read_rows(path: Path) -> list[Row]:
    """Read a file of COCO's results form.

    Raises:
        DatasetError: It cannot be read, or a row lacks something or holds what it must not.
    """
    rows = _read_json(path)
    if not isinstance(rows, list):
        raise DatasetError(f'{path}: is no list of detections; tools/test.py --out writes one')
    for number, row in enumerate(rows):
        missing = [key for key in _FORM if not isinstance(row, dict) or key not in row]
        if missing:
            raise DatasetError(f'{path}: detection {number} has no {missing[0]!r}')
        for key, (fits, form) in _FORM.items():
            if not fits(row[key]):
                raise DatasetError(
                    f'{path}: detection {number}: {key!r} must be {form}, not {row[key]!r:.60}'
                )
    return rows


def fuse_rows(
    models: Sequence[Sequence[Row]],
    iou_threshold: float = IOU_THR,
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

    Raises:
        ConfigError: The threshold is out of range.
    """
    _check_threshold(iou_threshold)
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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path}: cannot be read as json: {error}') from error


def _check_threshold(iou_threshold: float) -> None:
    if not 0 < iou_threshold <= 1:
        raise ConfigError(
            f'iou_threshold (--iou-thr) {iou_threshold}: must be above 0 and at most 1, as 0.55'
        )


def _check_shared(paths: Sequence[Path], files: Sequence[Sequence[Row]]) -> None:
    """Refuse files without a picture or a category in common; one without a row fits all."""
    full = [(path, rows) for path, rows in zip(paths, files, strict=True) if rows]
    for key, what in (('image_id', 'picture'), ('category_id', 'category')):
        ids = [{row[key] for row in rows} for _, rows in full]
        for (path, rows), own in zip(full[1:], ids[1:], strict=True):
            if not own & ids[0]:
                first, others = full[0]
                raise DatasetError(
                    f'{path}: has no {what} in common with {first} ({key} {rows[0][key]!r} and '
                    f'{others[0][key]!r}): fuse results on the same pictures and classes'
                )


def _check_known(path: Path, rows: Sequence[Row], truth: COCO) -> None:
    """Refuse rows of pictures or categories that the ground truth has not."""
    for key, known in (('image_id', truth.imgs), ('category_id', truth.cats)):
        unknown = list(dict.fromkeys(row[key] for row in rows if row[key] not in known))
        if unknown:
            raise DatasetError(
                f'{path}: {key} {unknown[0]!r} is not in the ground truth ({len(unknown)} such): '
                'give the annotation file of the same pictures and classes'
            )
