"""The 12 COCO numbers as COCO defines them, at 1, 10 and 100 detections an image."""

import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval

from effdet_plugin.errors import DatasetError

# In the order of COCOeval.stats; the first six are mmdet's names.
NAMES = (
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100'),
)
MAX_DETECTIONS = (1, 10, 100)
# What COCO's test server asks for in an upload.
_COORDINATE_DIGITS = 2
_SCORE_DIGITS = 3

Row = dict[str, Any]


@METRICS.register_module()
class CocoTwelveMetric(CocoMetric):
    """COCO's box evaluation, unrounded and with all 12 numbers by their names.

    mmdet's ``CocoMetric``, from which reading and collecting come, evaluates at 100, 300 and 1000
    detections, names six of the numbers, rounds them, numbers the categories by their place in
    the file, and fails where nothing was detected. Here categories are found by their names, those
    that are no class of the model do not count, and an image that samplers of several processes
    hand out twice counts once.

    Args:
        ann_file: COCO json with the ground truth; None takes it from the data samples.
        results_file: Where the detections are written in COCO's results form; None: nowhere.
        test_dev_form: Write coordinates with 2 and scores with 3 decimals there. The numbers
            come from the unrounded ones in any case.
        classwise: Also give the AP of every class, as ``NAME_precision``.
        backend_args: mmengine's, for reading ``ann_file``.
        collect_device: mmengine's; ``'gpu'`` means the process group (of CPUs, too), ``'cpu'``
            a folder that all processes share.
        prefix: Before the names; ``coco`` if None.

    Raises:
        DatasetError: The file cannot be read.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        results_file: str | None = None,
        test_dev_form: bool = False,
        classwise: bool = False,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = 'gpu',
        prefix: str | None = None,
    ) -> None:
        try:
            with redirect_stdout(io.StringIO()):  # pycocotools prints
                super().__init__(
                    ann_file=ann_file,
                    classwise=classwise,
                    proposal_nums=MAX_DETECTIONS,
                    backend_args=backend_args,
                    collect_device=collect_device,
                    prefix=prefix,
                )
        except (OSError, ValueError) as error:
            raise DatasetError(f'{ann_file}: cannot be read as COCO json: {error}') from error
        self.ann_file = ann_file
        self.results_file = results_file
        self.test_dev_form = test_dev_form

    def evaluate(self, size: int) -> dict[str, float]:
        """Evaluate what all processes have seen.

        Args:
            size: Images in the data set. mmengine drops what is beyond it, which may be the
                wrong ones; doubles are dropped by image id instead.
        """
        return super().evaluate(size * get_world_size())

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Compute the numbers.

        Args:
            results: Pairs of ground truth and detections of an image, boxes xyxy in pixels of
                the original image.

        Returns:
            The 12 numbers as ``bbox_*`` (-1 where there is no object to find, in test-dev
            everywhere), the count of ``images``, and with ``classwise`` the AP of each class.
        """
        detections = {detected['img_id']: detected for _, detected in results}
        coco = self._coco_api or self._ground_truth_of_samples(results)
        category_ids = self._category_ids(coco)
        rows = to_rows(detections.values(), category_ids)
        if self.results_file:
            write_rows(rows, Path(self.results_file), self.test_dev_form)
        numbers = {f'bbox_{name}': -1.0 for name in NAMES}
        if coco.anns:
            known = [id_ for id_ in category_ids if id_ is not None]
            evaluation = evaluate_rows(coco, rows, sorted(detections), known)
            numbers = {f'bbox_{n}': float(v) for n, v in zip(NAMES, evaluation.stats, strict=True)}
            if self.classwise:
                numbers |= _classwise(coco, evaluation)
        MMLogger.get_current_instance().info(
            '%d images, %d detections%s', len(detections), len(rows), _one_line(numbers)
        )
        return numbers | {'images': float(len(detections))}

    def _ground_truth_of_samples(self, results: list[Any]) -> COCO:
        """Make a COCO object of the ground truth that came with the samples, each image once."""
        truths = {truth['img_id']: truth for truth, _ in results}
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            return COCO(self.gt_to_coco_json(list(truths.values()), f'{folder}/truth'))

    def _category_ids(self, coco: COCO) -> list[int | None]:
        """Return the category id of each class of the model, None for one the file has not."""
        by_name: dict[str, int] = {}
        for category in coco.dataset.get('categories', []):
            by_name.setdefault(category['name'], category['id'])
        classes = self.dataset_meta['classes']
        ids = [by_name.get(name) for name in classes]
        if not any(id_ is not None for id_ in ids):
            raise DatasetError(
                f'{self.ann_file}: has none of the classes {tuple(classes)[:5]}, but '
                f'{tuple(by_name)[:5]}: set metainfo.classes to them'
            )
        return ids


def to_rows(
    detections: Sequence[Mapping[str, Any]] | Any, category_ids: Sequence[int | None]
) -> list[Row]:
    """Write detections in COCO's results form.

    Args:
        detections: Of one image each: ``img_id``, ``bboxes (N, 4)`` xyxy in pixels of the
            image, ``scores (N,)``, ``labels (N,)``.
        category_ids: By label; None leaves out the detections of that class.

    Returns:
        Rows with ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.
    """
    rows = []
    for image in detections:
        boxes = np.asarray(image['bboxes'], dtype=np.float64).reshape(-1, 4)
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for box, score, label in zip(sides.tolist(), image['scores'], image['labels'], strict=True):
            category = category_ids[int(label)]
            if category is not None:
                rows.append(
                    dict(
                        image_id=image['img_id'],
                        category_id=category,
                        bbox=box,
                        score=float(score),
                    )
                )
    return rows


def write_rows(rows: Sequence[Row], path: Path, test_dev_form: bool = False) -> None:
    """Write rows to a json file, whole or not at all.

    Args:
        rows: From `to_rows`.
        path: The file; its folder is made.
        test_dev_form: Coordinates with 2 and scores with 3 decimals.
    """
    if test_dev_form:
        rows = [_rounded(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        beside.write_text(json.dumps(rows), encoding='utf-8')
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def evaluate_rows(
    coco: COCO,
    rows: Sequence[Row],
    image_ids: Sequence[int],
    category_ids: Sequence[int] | None = None,
) -> COCOeval:
    """Run COCO's evaluation of boxes.

    Args:
        coco: Ground truth; annotations without ``area`` or ``iscrowd`` get them.
        rows: From `to_rows`; not changed.
        image_ids: What is evaluated; an image without a row counts as nothing found.
        category_ids: What is averaged over; None: all categories of the ground truth.

    Returns:
        The evaluation, with the 12 numbers in ``stats``.

    Raises:
        DatasetError: An image that the ground truth has not.
    """
    unknown = sorted(set(image_ids) - set(coco.imgs))
    if unknown:
        raise DatasetError(
            f'image id {unknown[0]} is in the data set but not in the annotation file of the '
            f'evaluator ({len(unknown)} such): give both the same file'
        )
    for annotation in coco.anns.values():
        annotation.setdefault('iscrowd', 0)
        annotation.setdefault('area', annotation['bbox'][2] * annotation['bbox'][3])
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = COCOeval(coco, _detections(coco, rows), 'bbox')
        evaluation.params.imgIds = list(image_ids)
        evaluation.params.maxDets = list(MAX_DETECTIONS)
        if category_ids is not None:
            evaluation.params.catIds = sorted(category_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _detections(coco: COCO, rows: Sequence[Row]) -> COCO:
    """Make a COCO object of rows; `loadRes` adds keys to them and wants at least one."""
    if rows:
        return coco.loadRes([dict(row) for row in rows])
    nothing = COCO()
    nothing.dataset = {**coco.dataset, 'annotations': []}
    nothing.createIndex()
    return nothing


def _rounded(row: Row) -> Row:
    box = [round(value, _COORDINATE_DIGITS) for value in row['bbox']]
    return {**row, 'bbox': box, 'score': round(row['score'], _SCORE_DIGITS)}


def _classwise(coco: COCO, evaluation: COCOeval) -> dict[str, float]:
    """Return the AP of each category over all sizes and IoUs, -1 where it has no object."""
    precision = evaluation.eval['precision'][:, :, :, 0, -1]  # (IoU, recall, category)
    names = [coco.cats[id_]['name'] for id_ in evaluation.params.catIds]
    present = [values[values > -1] for values in np.moveaxis(precision, 2, 0)]
    return {
        f'{name}_precision': float(values.mean()) if values.size else -1.0
        for name, values in zip(names, present, strict=True)
    }


def _one_line(numbers: Mapping[str, float]) -> str:
    return ''.join(f', {name} {numbers[f"bbox_{name}"]:.3f}' for name in NAMES[:3])
