"""Detect objects in many image files: a drawing of each, and one json for all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdet.structures import DetDataSample
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import write_atomically
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.draw import Drawable, draw_boxes
from effdet_plugin.inference.images import RGBImage, read_image, write_image


@dataclass
class InferenceResult:
    """The detections of many files.

    Attributes:
        predictions: COCO's results form. ``image_id`` counts the files from 1 and ``category_id``
            the model's classes from 1; ``file_name`` and ``category_name`` stand beside them.
        unreadable: One line for each file that could not be read.
        num_read: Number of the other files.
    """

    predictions: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    num_read: int = 0


def infer_files(detector: Detector, files: Sequence[Path], out_dir: Path) -> InferenceResult:
    """Write ``out_dir/vis/NAME.jpg|png`` for each image and ``out_dir/predictions.json``.

    Args:
        detector: Its ``score_thr`` decides what is drawn and written.
        files: Images; one that cannot be read becomes a line in the result.
        out_dir: Made if it is missing; files of an earlier call are replaced one by one.

    Raises:
        DatasetError: The only file given cannot be read.
    """
    result = InferenceResult()
    names = drawing_names(files)
    with tqdm(total=len(files), desc='images', unit='img') as bar:
        for start in range(0, len(files), detector.batch_size):
            numbers = range(start, min(start + detector.batch_size, len(files)))
            images = _read_images(files, numbers, result)
            for index, sample in zip(images, detector(list(images.values())), strict=True):
                drawable = Drawable.of(sample.pred_instances)
                drawn = draw_boxes(images[index], drawable, detector.classes)
                write_image(out_dir / 'vis' / names[index], drawn)
                result.predictions += _coco_results(
                    sample, detector.classes, index + 1, files[index].name
                )
            bar.update(len(numbers))
    if len(files) == 1 and result.unreadable:
        raise DatasetError(result.unreadable[0])
    write_atomically(out_dir / 'predictions.json', json.dumps(result.predictions, indent=1))
    return result


def drawing_names(files: Sequence[Path]) -> list[str]:
    """Return the file name of each drawing: .png stays .png, others become .jpg; all differ."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        suffix = '.png' if file.suffix.lower() == '.png' else '.jpg'
        name, count = file.stem + suffix, 2
        while name.lower() in taken:  # some file systems ignore upper and lower case
            name, count = f'{file.stem}_{count}{suffix}', count + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _read_images(
    files: Sequence[Path], numbers: Sequence[int], result: InferenceResult
) -> dict[int, RGBImage]:
    """Read some of the files by their numbers; add those that cannot be read to ``result``."""
    images = {}
    for number in numbers:
        try:
            images[number] = read_image(files[number])
        except DatasetError as error:
            result.unreadable.append(str(error))
    result.num_read += len(images)
    return images


def _coco_results(
    sample: DetDataSample, classes: Sequence[str], image_id: int, file_name: str
) -> list[dict[str, Any]]:
    """Return the detections of one image in COCO's results form, box as x, y, width, height."""
    found = sample.pred_instances
    boxes = found.bboxes.clone()
    boxes[:, 2:] -= boxes[:, :2]
    columns = zip(boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return [
        {
            'image_id': image_id,
            'file_name': file_name,
            'category_id': label + 1,
            'category_name': classes[label],
            'bbox': [round(side, 2) for side in box],
            'score': round(score, 5),
        }
        for box, label, score in columns
    ]
