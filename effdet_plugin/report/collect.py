"""Everything a report shows of one evaluation, computed from COCO results and ground truth."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from effdet_plugin.evaluation.coco_twelve import NAMES, Evaluated, Result, evaluate_results
from effdet_plugin.files import replacing
from effdet_plugin.report.matching import (
    Boxes,
    Calibration,
    Cut,
    Flags,
    Floats,
    Ints,
    best_cut,
    calibrate,
    confusion_of,
    match,
)

SIZES = ('small', 'medium', 'large')  # COCO's: below 32², below 96², the others
_AT_50, _ALL_AREAS, _MOST = 0, 0, -1  # places in COCOeval's arrays


class Detections(NamedTuple):
    """Detections as arrays, 28 bytes each.

    Args:
        image: (D,) place of the image in ``sorted(coco.imgs)``.
        label: (D,) index into the classes.
        box: (D, 4) x, y, width, height in pixels of the image, as in COCO's results.
        score: (D,).
        evaluated: (N,) places of the images that were looked at.
    """

    image: NDArray[np.int32]
    label: NDArray[np.int32]
    box: NDArray[np.float32]
    score: NDArray[np.float32]
    evaluated: NDArray[np.int32]

    @classmethod
    def of(cls, evaluated: Evaluated) -> 'Detections':
        """Take what a metric has kept."""
        results, ids = evaluated.results, evaluated.category_ids
        place = {id_: number for number, id_ in enumerate(sorted(evaluated.coco.imgs))}
        label = {id_: number for number, id_ in enumerate(ids) if id_ is not None}
        return cls(
            np.array([place[one['image_id']] for one in results], np.int32),
            np.array([label[one['category_id']] for one in results], np.int32),
            np.array([one['bbox'] for one in results], np.float32).reshape(-1, 4),
            np.array([one['score'] for one in results], np.float32),
            np.array([place[id_] for id_ in evaluated.image_ids], np.int32),
        )

    def results(self, coco: COCO, category_ids: Sequence[int | None]) -> list[Result]:
        """Return them in COCO's form."""
        ids = sorted(coco.imgs)
        columns = zip(*(column.tolist() for column in self[:4]), strict=True)
        return [
            dict(image_id=ids[image], category_id=category_ids[label], bbox=box, score=score)
            for image, label, box, score in columns
        ]

    def save(self, path: Path, epoch: int, ap: float) -> None:
        """Write them to an ``.npz``, atomically, with the epoch and the AP that they are of."""
        with replacing(path) as part:
            np.savez(part, epoch=epoch, ap=ap, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> tuple['Detections', int, float] | None:
        """Read what `save` wrote: detections, epoch and AP; None if the file is no such."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = cls(*(file[name] for name in cls._fields))
                return found, int(file['epoch']), float(file['ap'])
        except (OSError, KeyError, TypeError, ValueError, BadZipFile):
            return None


class ClassFacts(NamedTuple):
    """One class.

    Args:
        name: Of the class.
        boxes: Objects in the evaluated images.
        ap: AP; -1 without objects, as the next ones.
        ap50: At IoU 0.5.
        by_size: Of small, medium and large objects.
        cut: The threshold with the highest F1.
    """

    name: str
    boxes: int
    ap: float
    ap50: float
    by_size: tuple[float, ...]
    cut: Cut


@dataclass(frozen=True)
class Facts:
    """The result of an evaluation.

    Args:
        metrics: COCO's 12, by `effdet_plugin.evaluation.NAMES`.
        classes: A row for each class.
        recall: (101,) grid of the next.
        precision: (101, C) at IoU 0.5, -1 for a class without objects.
        calibration: Of all classes together.
        cut: Likewise.
        confusion: (C + 1, C + 1), see `effdet_plugin.report.matching.confusion_of`, of detections
            above ``cut.threshold``.
        images: The evaluated ones.
    """

    metrics: dict[str, float]
    classes: tuple[ClassFacts, ...]
    recall: Floats
    precision: Floats
    calibration: Calibration
    cut: Cut
    confusion: Ints
    images: tuple['ImageFacts', ...] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return tuple(one.name for one in self.classes)

    @property
    def scores_in_words(self) -> str:
        """From which score on detections are counted as such."""
        return f'from {self.cut.threshold:.2f}' if self.cut.threshold > 0 else 'of any height'

    def worst(self, number: int) -> list['ImageFacts']:
        """Return the images with the most mistakes, at most so many; only such that have any."""
        ranked = sorted(self.images, key=lambda one: (-one.mistakes, one.file))
        return [one for one in ranked[:number] if one.mistakes]

    def scored(self) -> list[ClassFacts]:
        """Return the classes that have objects, the highest AP first."""
        return sorted((one for one in self.classes if one.ap >= 0), key=lambda one: -one.ap)


class ImageFacts(NamedTuple):
    """One image.

    Args:
        file: As the annotations name it.
        size: Width and height, pixels.
        truth: Its objects.
        found: Detections above the threshold.
        missed: Number of objects that nothing hit.
        false: Number of detections that hit nothing.
        confused: Number of detections that hit an object of another class.
    """

    file: str
    size: tuple[int, int]
    truth: Boxes
    found: Boxes
    missed: int
    false: int
    confused: int

    @property
    def mistakes(self) -> int:
        """All of them."""
        return self.missed + self.false + self.confused


def collect(
    coco: COCO,
    found: Detections,
    classes: Sequence[str],
    category_ids: Sequence[int | None],
) -> Facts:
    """Compute everything.

    Args:
        coco: Ground truth.
        found: Detections in its images.
        classes: Name of each label.
        category_ids: The truth's id of each label; None: the truth has no such class.
    """
    known = [id_ for id_ in category_ids if id_ is not None]
    every = sorted(coco.imgs)
    ids = [every[place] for place in sorted(found.evaluated.tolist())]
    evaluation = evaluate_results(coco, found.results(coco, category_ids), ids, known)
    places = {id_: k for k, id_ in enumerate(evaluation.params.catIds)}
    judged = [_judged(evaluation, places.get(id_)) for id_ in category_ids]
    scores, is_right = (np.concatenate([one[k] for one in judged]) for k in (0, 1))
    cut = best_cut(scores, is_right, sum(one[2] for one in judged))
    rows = tuple(
        _class_facts(name, evaluation, places.get(id_), one)
        for name, id_, one in zip(classes, category_ids, judged, strict=True)
    )
    images, confusion = facts_of_images(coco, found, category_ids, cut.threshold)
    precision = np.full((len(evaluation.params.recThrs), len(classes)), -1.0)
    for label, id_ in enumerate(category_ids):
        if id_ is not None:
            column = evaluation.eval['precision'][_AT_50, :, places[id_], _ALL_AREAS, _MOST]
            precision[:, label] = column
    return Facts(
        metrics=dict(zip(NAMES, map(float, evaluation.stats), strict=True)),
        classes=rows,
        recall=np.asarray(evaluation.params.recThrs),
        precision=precision,
        calibration=calibrate(scores, is_right),
        cut=cut,
        confusion=confusion,
        images=images,
    )


def _judged(evaluation: COCOeval, category: int | None) -> tuple[Floats, Flags, int]:
    """Return of a class: scores, whether each is right at IoU 0.5, and the number of objects.

    The matches are COCO's own, with at most 100 detections of an image.
    """
    if category is None:
        return np.zeros(0), np.zeros(0, bool), 0
    params = evaluation.params
    first = category * len(params.areaRng) * len(params.imgIds)
    images = [one for one in evaluation.evalImgs[first : first + len(params.imgIds)] if one]
    counted = [~np.asarray(one['dtIgnore'][_AT_50], bool) for one in images]
    right = [np.asarray(one['dtMatches'][_AT_50]) > 0 for one in images]
    pairs = list(zip(images, right, counted, strict=True))
    return (
        np.concatenate([np.zeros(0), *(np.asarray(i['dtScores'])[c] for i, _, c in pairs)]),
        np.concatenate([np.zeros(0, bool), *(r[c] for _, r, c in pairs)]),
        sum(int((~np.asarray(one['gtIgnore'], bool)).sum()) for one in images),
    )


def _class_facts(
    name: str,
    evaluation: COCOeval,
    category: int | None,
    judged: tuple[Floats, Flags, int],
) -> ClassFacts:
    cut = best_cut(*judged)
    if category is None:
        return ClassFacts(name, 0, -1.0, -1.0, (-1.0,) * len(SIZES), cut)
    precision = evaluation.eval['precision'][:, :, category, :, _MOST]  # (IoU, recall, area)
    areas = [_mean(precision[..., area]) for area in range(precision.shape[-1])]
    ap50 = _mean(precision[_AT_50, :, _ALL_AREAS])
    return ClassFacts(name, judged[2], areas[0], ap50, tuple(areas[1:]), cut)


def _mean(values: NDArray[Any]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def facts_of_images(
    coco: COCO, found: Detections, category_ids: Sequence[int | None], threshold: float
) -> tuple[tuple[ImageFacts, ...], Ints]:
    """Return each evaluated image with its mistakes, and the confusion of all.

    Args:
        coco: Ground truth.
        found: Detections in its images.
        category_ids: The truth's id of each label.
        threshold: Of the score; nan keeps all.
    """
    label_of = {id_: label for label, id_ in enumerate(category_ids) if id_ is not None}
    total = np.zeros((len(category_ids) + 1,) * 2, np.int64)
    images = []
    ids = sorted(coco.imgs)
    detected_in = list(_by_image(found, len(ids), threshold))
    for place in sorted(found.evaluated.tolist()):
        id_, detected = ids[place], detected_in[place]
        image = coco.imgs[id_]
        truth = _truth(coco.imgToAnns.get(id_, []), label_of)
        hits = match(detected, truth)
        total += confusion_of(detected, truth, hits, len(category_ids))
        is_hit = hits.truth_of >= 0
        is_same = detected.labels[is_hit] == truth.labels[hits.truth_of[is_hit]]
        images.append(
            ImageFacts(
                str(image.get('file_name', id_)),
                (int(image.get('width', 0)), int(image.get('height', 0))),
                truth,
                detected,
                missed=int(hits.is_missed.sum()),
                false=int((~is_hit & ~hits.is_ignored).sum()),
                confused=int((~is_same).sum()),
            )
        )
    return tuple(images), total


def _by_image(found: Detections, images: int, threshold: float) -> Iterator[Boxes]:
    """Yield the detections of each image above a threshold, all of them where that is nan."""
    kept = np.flatnonzero(~(found.score.astype(np.float64) < threshold))
    order = kept[np.argsort(found.image[kept], kind='stable')]
    ends = np.searchsorted(found.image[order], np.arange(images + 1))
    for first, last in itertools.pairwise(ends.tolist()):
        some = order[first:last]
        box = found.box[some].astype(np.float64)
        yield Boxes(
            np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1),
            found.label[some].astype(np.int64),
            found.score[some].astype(np.float64),
            np.zeros(len(some), bool),
        )


def _truth(annotations: Sequence[dict[str, Any]], label_of: dict[int, int]) -> Boxes:
    """Return the objects of an image; of classes that the model has."""
    known = [one for one in annotations if one['category_id'] in label_of]
    if not known:
        return Boxes.none()
    box = np.array([one['bbox'] for one in known], np.float64)
    return Boxes(
        np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1),
        np.array([label_of[one['category_id']] for one in known], np.int64),
        np.zeros(len(known)),
        np.array([bool(one.get('iscrowd', 0) or one.get('ignore', 0)) for one in known], bool),
    )
