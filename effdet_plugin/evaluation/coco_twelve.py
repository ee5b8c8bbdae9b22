"""COCO's 12 metrics as COCO defines them, at 1, 10 and 100 detections per image."""

import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import write_atomically

# In the order of COCOeval.stats; the first six are mmdet's names.
NAMES = (
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100'),
)
MAX_DETECTIONS = (1, 10, 100)
# Decimals that COCO's test server asks for.
_COORDINATE_DIGITS = 2
_SCORE_DIGITS = 3

Result = dict[str, Any]  # one detection in COCO's results format


class Evaluated(NamedTuple):
    """What an evaluation has looked at.

    Args:
        coco: Ground truth.
        results: Detections in COCO's results form.
        image_ids: The images, sorted.
        category_ids: Of each class of the model; None: the truth has no such class.
        classes: Of the model.
    """

    coco: COCO
    results: list[Result]
    image_ids: list[int]
    category_ids: list[int | None]
    classes: tuple[str, ...]


@METRICS.register_module()
class CocoTwelveMetric(CocoMetric):
    """COCO's box evaluation: all 12 metrics by their names, not rounded.

    Reading and collecting are inherited from mmdet's ``CocoMetric``. That one evaluates at 100, 300
    and 1000 detections, reports six of the metrics, rounds them, assigns category ids by the order
    in the file, and fails if nothing was detected. Here categories are matched by name, categories
    that are not a class of the model are left out, and an image that the samplers of several
    processes repeat counts once.

    Args:
        ann_file: COCO json with the ground truth; None takes it from the data samples.
        results_file: File for the detections in COCO's results format; None: not written.
        test_dev_form: Write coordinates with 2 and scores with 3 decimals to that file. The metrics
            always come from the exact values.
        classwise: Also report the AP of each class, as ``NAME_precision``.
        backend_args: mmengine's, for reading ``ann_file``.
        collect_device: mmengine's: ``'gpu'`` collects through the process group (also of CPUs),
            ``'cpu'`` through a folder that all processes share.
        prefix: Prefix of the metrics' names; None: ``coco``.

    Attributes:
        keeps: Whether to keep what was evaluated, for a report.
        kept: It, in the first process; who reads it may set it to None, to free the memory.

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
        self.keeps = False
        self.kept: Evaluated | None = None

    def evaluate(self, size: int) -> dict[str, float]:
        """Evaluate the detections of all processes.

        Args:
            size: Number of images in the dataset. mmengine cuts the collected list at this number,
                which may drop the wrong images; repeated images are dropped by their id instead.
        """
        return super().evaluate(size * get_world_size())

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Compute the metrics.

        Args:
            results: Ground truth and detections of each image, boxes xyxy in pixels of the
                original image.

        Returns:
            The 12 metrics as ``bbox_*``, the number of ``images``, and with ``classwise`` the AP of
            each class. A metric is -1 if there is no such object, as always in test-dev.
        """
        detections = {detected['img_id']: detected for _, detected in results}
        coco = self._coco_api or self._ground_truth_of_samples(results)
        category_ids = self._category_ids(coco)
        found = to_results(detections.values(), category_ids)
        if self.results_file:
            write_results(found, Path(self.results_file), self.test_dev_form)
        if self.keeps:
            classes = tuple(self.dataset_meta['classes'])
            self.kept = Evaluated(coco, found, sorted(detections), category_ids, classes)
        numbers = {f'bbox_{name}': -1.0 for name in NAMES}
        if coco.anns:
            known = [id_ for id_ in category_ids if id_ is not None]
            evaluation = evaluate_results(coco, found, sorted(detections), known)
            numbers = {f'bbox_{n}': float(v) for n, v in zip(NAMES, evaluation.stats, strict=True)}
            if self.classwise:
                numbers |= _classwise(coco, evaluation)
        summary = ', '.join(f'{name} {numbers[f"bbox_{name}"]:.3f}' for name in NAMES[:3])
        MMLogger.get_current_instance().info(
            '%d images, %d detections, %s', len(detections), len(found), summary
        )
        return numbers | {'images': float(len(detections))}

    def _ground_truth_of_samples(self, results: list[Any]) -> COCO:
        """Build a COCO object from the ground truth in the samples, each image once."""
        truths = {truth['img_id']: truth for truth, _ in results}
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            return COCO(self.gt_to_coco_json(list(truths.values()), f'{folder}/truth'))

    def _category_ids(self, coco: COCO) -> list[int | None]:
        """Return the category id of each class of the model, None if the file lacks the class."""
        by_name: dict[str, int] = {}
        for category in coco.dataset.get('categories', []):
            by_name.setdefault(category['name'], category['id'])
        classes = self.dataset_meta['classes']
        ids = [by_name.get(name) for name in classes]
        if not any(id_ is not None for id_ in ids):
            raise DatasetError(
                f'{self.ann_file}: has none of the classes {tuple(classes)[:5]}, but '
                f'{tuple(by_name)[:5]}: set metainfo.classes to these'
            )
        return ids


def to_results(
    detections: Iterable[Mapping[str, Any]], category_ids: Sequence[int | None]
) -> list[Result]:
    """Convert detections to COCO's results format.

    Args:
        detections: For each image: ``img_id``, ``bboxes`` ``(N, 4)`` xyxy in pixels of the
            image, ``scores`` ``(N,)``, ``labels`` ``(N,)``.
        category_ids: By label; detections of a class with None are left out.

    Returns:
        Dicts of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.
    """
    results = []
    for image in detections:
        boxes = np.asarray(image['bboxes'], dtype=np.float64).reshape(-1, 4)
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for box, score, label in zip(sides.tolist(), image['scores'], image['labels'], strict=True):
            id_ = category_ids[int(label)]
            if id_ is not None:
                results.append(
                    dict(image_id=image['img_id'], category_id=id_, bbox=box, score=float(score))
                )
    return results


def write_results(results: Sequence[Result], path: Path, test_dev_form: bool = False) -> None:
    """Write detections to a JSON file atomically.

    Args:
        results: From `to_results`.
        path: The file; its folder is created if it is missing.
        test_dev_form: Round coordinates to 2 and scores to 3 decimals.
    """
    if test_dev_form:
        results = [
            {
                **result,
                'bbox': [round(value, _COORDINATE_DIGITS) for value in result['bbox']],
                'score': round(result['score'], _SCORE_DIGITS),
            }
            for result in results
        ]
    write_atomically(path, json.dumps(results))


def evaluate_results(
    coco: COCO,
    results: Sequence[Result],
    image_ids: Sequence[int],
    category_ids: Sequence[int] | None = None,
) -> COCOeval:
    """Run COCO's evaluation of boxes.

    Args:
        coco: Ground truth; annotations without ``area`` or ``iscrowd`` get them.
        results: From `to_results`; not changed.
        image_ids: The images to evaluate, also those without detections.
        category_ids: The categories to average over; None: all of the ground truth.

    Returns:
        The evaluation, with the 12 metrics in ``stats``.

    Raises:
        DatasetError: The ground truth lacks an image.
    """
    unknown = sorted(set(image_ids) - set(coco.imgs))
    if unknown:
        raise DatasetError(
            f'image id {unknown[0]} is in the dataset but not in the annotation file of the '
            f'evaluator ({len(unknown)} such): give both the same file'
        )
    for annotation in coco.anns.values():
        annotation.setdefault('iscrowd', 0)
        annotation.setdefault('area', annotation['bbox'][2] * annotation['bbox'][3])
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = COCOeval(coco, _to_coco(coco, results), 'bbox')
        evaluation.params.imgIds = list(image_ids)
        evaluation.params.maxDets = list(MAX_DETECTIONS)
        if category_ids is not None:
            evaluation.params.catIds = sorted(category_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _to_coco(coco: COCO, results: Sequence[Result]) -> COCO:
    """Build a COCO object from detections."""
    if results:
        return coco.loadRes([dict(result) for result in results])  # loadRes adds keys to them
    nothing = COCO()  # loadRes fails on an empty list
    nothing.dataset = {**coco.dataset, 'annotations': []}
    nothing.createIndex()
    return nothing


def _classwise(coco: COCO, evaluation: COCOeval) -> dict[str, float]:
    """Return the AP of each category over all sizes and IoUs, -1 if it has no object."""
    precision = evaluation.eval['precision'][:, :, :, 0, -1]  # (IoU, recall, category)
    names = [coco.cats[id_]['name'] for id_ in evaluation.params.catIds]
    present = [values[values > -1] for values in np.moveaxis(precision, 2, 0)]
    return {
        f'{name}_precision': float(values.mean()) if values.size else -1.0
        for name, values in zip(names, present, strict=True)
    }
