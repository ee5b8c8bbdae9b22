"""Find image files, detect objects in them, write a drawing of each and one JSON file for all."""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdet.structures import DetDataSample
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage, read_text, write_atomically, write_image
from effdet_plugin.images import read_image
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.draw import Drawable, draw_boxes

IMAGE_SUFFIXES = frozenset(
    {'.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
) | frozenset({'.avif', '.jfif', '.jp2', '.jpe', '.pbm', '.pgm', '.pnm', '.ppm'})
LIST_SUFFIXES = frozenset({'.txt', '.lst'})


@dataclass
class InferenceResult:
    """The detections of many files.

    Attributes:
        predictions: COCO's results format. ``image_id`` counts the files from 1 and
            ``category_id`` the model's classes from 1; ``file_name`` and ``category_name`` are
            added.
        unreadable: One line for each file that could not be read.
        num_read: Number of files that were read.
    """

    predictions: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    num_read: int = 0


def find_images(source: Path | str) -> list[Path]:
    """Return the image files of an INPUT argument, sorted by name; a list keeps its order.

    Args:
        source: An image; a folder (its files with an image suffix, not those in sub-folders); a
            glob pattern, which may contain ``**``; or a ``.txt`` list with one path per line,
            relative to the list's folder or else to the current one.

    Raises:
        DatasetError: No file is found.
    """
    path = Path(source)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_list(path) if path.suffix.lower() in LIST_SUFFIXES else [path]
    if glob.has_magic(str(source)):
        found = sorted(Path(name) for name in glob.glob(str(source), recursive=True))
        files = [file for file in found if file.is_file()]
        if files:
            return files
        raise DatasetError(f'no file matches {source}')
    raise DatasetError(f'{source}: no such file or folder')


def infer_files(detector: Detector, files: Sequence[Path], out_dir: Path) -> InferenceResult:
    """Write ``out_dir/vis/NAME.jpg|png`` for each image and ``out_dir/predictions.json``.

    Args:
        detector: Its ``score_thr`` decides what is drawn and written.
        files: Images; for one that cannot be read, the result has a line in ``unreadable``.
        out_dir: Created if it is missing; files of an earlier call are replaced one by one.

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
        while name.lower() in taken:  # some file systems ignore case
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
    """Return the detections of an image in COCO's results format: boxes x, y, width, height."""
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


def _from_folder(folder: Path) -> list[Path]:
    """Return the images directly in a folder."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    files = [path for path in files if not path.name.startswith('.') and path.is_file()]
    if not files:
        raise DatasetError(f"no image in {folder}; for its sub-folders give '{folder}/**/*.jpg'")
    return files


def _from_list(path: Path) -> list[Path]:
    """Return the paths in a text file; whether they can be read is not checked here."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    beside = [path.parent / line for line in lines if line and not line.startswith('#')]
    if not beside:
        raise DatasetError(f'{path} names no image')
    return [file if file.exists() else Path(file.relative_to(path.parent)) for file in beside]
