"""Fuse the result files of several models by weighted boxes fusion."""

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
from effdet_plugin.evaluation.coco_twelve import NAMES, Result, evaluate_results
from effdet_plugin.files import read_json, write_atomically
from effdet_plugin.ops.wbf import IOU_THR, fuse_boxes


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


# For each key of a detection: a check of its value, and the check in words.
_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    'image_id': (lambda value: _is_id(value) or isinstance(value, str), 'a whole number or text'),
    'category_id': (_is_id, 'a whole number'),
    'bbox': (_is_box, '4 finite numbers'),
    'score': (_is_number, 'a finite number'),
}


def fuse_files(
    paths: Sequence[Path],
    out: Path,
    iou_thr: float = IOU_THR,
    max_per_img: int = 100,
    labels_below: int | None = None,
    truth: COCO | None = None,
) -> int:
    """Fuse COCO result files of several models on the same images.

    Args:
        paths: Two or more result files, as ``tools/test.py --out`` writes them.
        out: The file of fused detections, in the same format.
        iou_thr: Boxes with at least this IoU are the same object; above 0 and at most 1.
        max_per_img: Number of detections kept per image.
        labels_below: See `effdet_plugin.ops.wbf.fuse_boxes`; the labels here are category ids.
        truth: Ground truth from `read_truth`, which must have the images and categories of all
            files; None: not checked.

    Returns:
        The number of fused detections.

    Raises:
        ConfigError: Only one file is given, or the threshold is out of range.
        DatasetError: A file is not in COCO's results format, two files have no image or no category
            in common, or one has images or categories that the ground truth lacks.
    """
    # A single file is not just copied: fusion would average its own boxes and lose detections.
    if len(paths) < 2:
        only = ', '.join(map(str, paths)) or 'no file'
        raise ConfigError(f'{only}: nothing to fuse with; give the result files of several models')
    _check_iou_thr(iou_thr)
    files = [read_results(path) for path in paths]
    if truth is not None:
        for path, results in zip(paths, files, strict=True):
            _check_known(path, results, truth)
    _check_shared(paths, files)
    fused = fuse_results(files, iou_thr, max_per_img, labels_below)
    write_atomically(out, json.dumps(fused))
    return len(fused)


def read_truth(ann_file: Path) -> COCO:
    """Read the ground truth of result files from a COCO json.

    Raises:
        DatasetError: The file cannot be read, or is not a ground truth.
    """
    truth = COCO()
    truth.dataset = read_json(ann_file)
    if not isinstance(truth.dataset, dict) or not {'images', 'categories'} <= set(truth.dataset):
        raise DatasetError(
            f'{ann_file}: is no ground truth, which has images, annotations and categories '
            '(a result file has none of them)'
        )
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            truth.createIndex()
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f'{ann_file}: cannot be read as COCO json of boxes: {error!r}'
        ) from error
    return truth


def evaluate_files(truth: COCO, paths: Sequence[Path]) -> Iterator[tuple[Path, dict[str, float]]]:
    """Evaluate result files against one ground truth.

    Args:
        truth: From `read_truth`.
        paths: Result files in COCO's results format.

    Yields:
        Each file with COCO's 12 metrics.

    Raises:
        DatasetError: A file cannot be read, or has images or categories that the truth lacks.
    """
    for path in paths:
        results = read_results(path)
        _check_known(path, results, truth)
        stats = evaluate_results(truth, results, sorted(truth.imgs)).stats
        yield path, dict(zip(NAMES, map(float, stats), strict=True))


def read_results(path: Path) -> list[Result]:
    """Read a file in COCO's results format.

    Raises:
        DatasetError: The file cannot be read, or a detection lacks a key or has a wrong value.
    """
    results = read_json(path)
    if not isinstance(results, list):
        raise DatasetError(f'{path}: is no list of detections; tools/test.py --out writes one')
    for number, result in enumerate(results):
        missing = [key for key in _CHECKS if not isinstance(result, dict) or key not in result]
        if missing:
            raise DatasetError(f'{path}: detection {number} has no {missing[0]!r}')
        for key, (is_valid, form) in _CHECKS.items():
            if not is_valid(result[key]):
                raise DatasetError(
                    f'{path}: detection {number}: {key!r} must be {form}, not {result[key]!r:.60}'
                )
    return results


def fuse_results(
    models: Sequence[Sequence[Result]],
    iou_thr: float = IOU_THR,
    max_per_img: int = 100,
    labels_below: int | None = None,
) -> list[Result]:
    """Fuse the detections of several models, image by image.

    Args:
        models: The detections of each model in COCO's results format. They are fused by descending
            score; ties keep the order of the models.
        iou_thr: See `fuse_files`.
        max_per_img: See `fuse_files`.
        labels_below: See `fuse_files`.

    Raises:
        ConfigError: The threshold is out of range.
    """
    _check_iou_thr(iou_thr)
    of_image: dict[Any, list[Result]] = {}
    for result in (result for results in models for result in results):
        of_image.setdefault(result['image_id'], []).append(result)
    fused: list[Result] = []
    for image_id, results in of_image.items():
        results.sort(key=lambda result: -result['score'])
        boxes = np.array([result['bbox'] for result in results], dtype=np.float64)
        boxes[:, 2:] += boxes[:, :2]  # width, height -> right, bottom
        scores = np.array([result['score'] for result in results], dtype=np.float64)
        labels = np.array([result['category_id'] for result in results])
        boxes, scores, labels = fuse_boxes(
            boxes, scores, labels, len(models), iou_thr, labels_below
        )
        boxes[:, 2:] -= boxes[:, :2]
        best = zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        fused += [
            {'image_id': image_id, 'category_id': label, 'bbox': box, 'score': score}
            for box, score, label in list(best)[:max_per_img]
        ]
    return fused


def _check_iou_thr(iou_thr: float) -> None:
    if not 0 < iou_thr <= 1:
        raise ConfigError(f'iou_thr (--iou-thr) {iou_thr}: must be above 0 and at most 1, as 0.55')


def _check_shared(paths: Sequence[Path], files: Sequence[Sequence[Result]]) -> None:
    """Raise DatasetError for files without a common image or category; empty files are allowed."""
    full = [(path, results) for path, results in zip(paths, files, strict=True) if results]
    for key, what in (('image_id', 'image'), ('category_id', 'category')):
        ids = [{result[key] for result in results} for _, results in full]
        for (path, results), own in zip(full[1:], ids[1:], strict=True):
            if not own & ids[0]:
                first, others = full[0]
                raise DatasetError(
                    f'{path}: has no {what} in common with {first} ({key} {results[0][key]!r} and '
                    f'{others[0][key]!r}): fuse results on the same images and classes'
                )


def _check_known(path: Path, results: Sequence[Result], truth: COCO) -> None:
    """Raise DatasetError for detections of images or categories that the ground truth lacks."""
    for key, known in (('image_id', truth.imgs), ('category_id', truth.cats)):
        ids = dict.fromkeys(result[key] for result in results)
        unknown = [one for one in ids if one not in known]
        if unknown:
            raise DatasetError(
                f'{path}: {key} {unknown[0]!r} is not in the ground truth ({len(unknown)} such): '
                'give the annotation file of the same images and classes'
            )
