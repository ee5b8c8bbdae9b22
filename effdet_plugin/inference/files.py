"""Many picture files through a detector: a drawing of each, and one json for all."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdet.structures import DetDataSample
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import replacing
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.draw import Drawable, draw_boxes
from effdet_plugin.inference.images import RGBImage, read_image, write_image


@dataclass
class Inferred:
    """What became of the files.

    Attributes:
        predictions: COCO's results form, ``image_id`` counting the files from 1 and
            ``category_id`` the model's classes from 1, with both names beside the numbers.
        unreadable: One line for each file that could not be read.
        num_read: Number of the others.
    """

    predictions: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    num_read: int = 0


def infer_files(detector: Detector, files: Sequence[Path], out_dir: Path) -> Inferred:
    """Write ``out_dir/vis/NAME.jpg|png`` for each picture and ``out_dir/predictions.json``.

    Args:
        detector: Its ``score_thr`` decides what is drawn and written.
        files: Pictures; one that cannot be read is a line in the result.
        out_dir: Is made where it is missing; files of an earlier call are replaced one by one.

    Raises:
        DatasetError: The only file given cannot be read.
    """
    result = Inferred()
    names = picture_names(files)
    with tqdm(total=len(files), desc='pictures', unit='img') as bar:
        readable = _read_all(files, result, bar)
        for batch in _batches(readable, detector.batch_size):
            samples = detector([image for _, image in batch])
            for (index, image), sample in zip(batch, samples, strict=True):
                drawn = draw_boxes(image, Drawable.of(sample.pred_instances), detector.classes)
                write_image(out_dir / 'vis' / names[index], drawn)
                result.predictions += _coco_results(
                    sample, detector.classes, index + 1, files[index].name
                )
    if len(files) == 1 and result.unreadable:
        raise DatasetError(result.unreadable[0])
    with replacing(out_dir / 'predictions.json') as part:
        part.write_text(json.dumps(result.predictions, indent=1))
    return result


def picture_names(files: Sequence[Path]) -> list[str]:
    """Return the name of each file's drawing: PNG stays PNG, the rest is JPEG; none twice."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        suffix = '.png' if file.suffix.lower() == '.png' else '.jpg'
        name, count = file.stem + suffix, 2
        while name.lower() in taken:  # some file systems do not tell letters' cases apart
            name, count = f'{file.stem}_{count}{suffix}', count + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _read_all(
    files: Sequence[Path], result: Inferred, bar: 'tqdm[Any]'
) -> Iterator[tuple[int, RGBImage]]:
    """Yield the number and pixels of each readable file; note the others in ``result``."""
    for index, file in enumerate(files):
        try:
            image = read_image(file)
        except DatasetError as error:
            result.unreadable.append(str(error))
        else:
            result.num_read += 1
            yield index, image
        bar.update()


def _batches(
    pictures: Iterable[tuple[int, RGBImage]], size: int
) -> Iterator[list[tuple[int, RGBImage]]]:
    """Yield lists of ``size`` pictures, the last one shorter."""
    batch: list[tuple[int, RGBImage]] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _coco_results(
    sample: DetDataSample, classes: Sequence[str], image_id: int, file_name: str
) -> list[dict[str, Any]]:
    """Return the detections of one picture in COCO's results form, box as x, y, width, height."""
    found = sample.pred_instances
    boxes = found.bboxes.clone()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return [
        {
            'image_id': image_id,
            'file_name': file_name,
            'category_id': label + 1,
            'category_name': classes[label],
            'bbox': [round(side, 2) for side in box],
            'score': round(score, 5),
        }
        for box, label, score in rows
    ]
