"""What comes of an inference: counts and lines, and the detections in COCO's results format."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from mmdet.structures import DetDataSample

from effdet_plugin.files import read_json, replacing


@dataclass
class InferenceResult:
    """The detections of many images and frames.

    Attributes:
        file: ``predictions.json``.
        num_objects: Number of its rows.
        num_read: Number of images and frames that were read.
        num_frames: How many of these are frames of videos.
        num_skipped: Number of images that could not be read; they have an ``image_id``, too.
        unreadable: One line for each source that could not be read.
        remarks: Further lines: what was written, and what was found about videos.
        highest: Highest score below the threshold in images without an object, and where it is.
        is_interrupted: Ctrl-C, or a closed window, ended the work early.
    """

    file: Path
    num_objects: int = 0
    num_read: int = 0
    num_frames: int = 0
    num_skipped: int = 0
    unreadable: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    highest: tuple[float, str] = (0.0, '')
    is_interrupted: bool = False

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """The rows, read from `file`: those of a long video do not stay in memory."""
        rows: list[dict[str, Any]] = read_json(self.file)
        return rows

    def summary(self, score_thr: float) -> str:
        """Return one line: how many objects were found, or the highest score if none was."""
        images = self.num_read - self.num_frames
        counts = [(images, 'image'), (self.num_frames, 'frame')]
        named = [f'{count} {word}{"s"[: count != 1]}' for count, word in counts if count]
        where = ' and '.join(named) or '0 images'
        if self.num_objects:
            return f'{self.num_objects} object{"s"[: self.num_objects != 1]} in {where}'
        score, name = self.highest
        told = f'highest score {score:.2g} in {name}' if name else 'nothing has a higher score'
        return f'no object above {score_thr:g} in {where}; {told}'


class PredictionsFile:
    """A json list that is written row by row, so that memory stays flat; see `writing_predictions`.

    Attributes:
        num_rows: Rows written.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.num_rows = 0

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        for row in rows:
            self._file.write(('[\n' if self.num_rows == 0 else ',\n') + json.dumps(row))
            self.num_rows += 1

    def close(self) -> None:
        """End the list."""
        self._file.write('\n]\n' if self.num_rows else '[]\n')


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that `PredictionsFile` wrote, one in memory at a time."""
    with path.open(encoding='utf-8') as file:
        for line in file:
            if line.startswith('{'):
                yield json.loads(line.rstrip(',\n'))


@contextmanager
def writing_predictions(path: Path) -> Iterator[PredictionsFile]:
    """Yield a file of predictions, which replaces ``path`` when the block succeeds.

    Raises:
        WriteError: It cannot be written.
    """
    with replacing(path) as part, part.open('w', encoding='utf-8') as file:
        predictions = PredictionsFile(file)
        yield predictions
        predictions.close()


def to_dicts(sample: DetDataSample, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the detections of an image as plain Python values, fit for JSON.

    Args:
        sample: Detections of one image.
        classes: Name of each label.

    Returns:
        For each, by descending score: ``box`` [x1, y1, x2, y2] in pixels, ``score``, ``label``
        (from 0) and ``name``.
    """
    found = sample.pred_instances
    columns = zip(found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        {'box': box, 'score': score, 'label': label, 'name': classes[label]}
        for box, score, label in columns
    ]


def coco_rows(
    sample: DetDataSample,
    classes: Sequence[str],
    image_id: int,
    file_name: str,
    frame: int | None = None,
    time_s: float | None = None,
) -> list[dict[str, Any]]:
    """Return the detections of an image in COCO's results format: boxes x, y, width, height.

    Args:
        sample: Detections of one image.
        classes: Name of each label; ``category_id`` counts them from 1.
        image_id: Number of the image.
        file_name: Added as it is.
        frame: Number of a frame in its video, from 0; None for an image.
        time_s: When the frame is shown, from the start of the video.
    """
    found = sample.pred_instances
    boxes = found.bboxes.clone()
    boxes[:, 2:] -= boxes[:, :2]
    place: dict[str, Any] = {'image_id': image_id, 'file_name': file_name}
    if frame is not None:
        place |= {'frame': frame, 'time_s': round(time_s or 0.0, 3)}
    columns = zip(boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return [
        {
            **place,
            'category_id': label + 1,
            'category_name': classes[label],
            'bbox': [round(side, 2) for side in box],
            'score': round(score, 5),
        }
        for box, label, score in columns
    ]
