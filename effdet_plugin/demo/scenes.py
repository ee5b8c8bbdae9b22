"""Synthetic scenes as a COCO dataset, and predictions drawn beside the ground truth.

Every image is a function of (seed, split, index); `scene_painter` describes its content.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.demo.scene_painter import CLASSES, Pixels, SceneObject, draw_scene
from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage, write_errors
from effdet_plugin.images import read_image
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.draw import Drawable, side_by_side, stack

SPLITS = ('train', 'val')
VERSION = 1  # stored in the annotation files: increase it when the images change

Drawn = tuple[str, tuple[int, int], list[SceneObject]]  # file name, (height, width), objects


def scene(seed: int, split: str, index: int) -> tuple[Pixels, list[SceneObject]]:
    """Return image ``index`` of a split; equal arguments give equal pixels."""
    return draw_scene(np.random.default_rng((seed, SPLITS.index(split), index)))


def make_scenes(out_dir: Path | str, train: int = 320, val: int = 64, seed: int = 0) -> Path:
    """Make a dataset of scenes: ``{train,val}/*.jpg`` and ``annotations/{train,val}.json``.

    The folder is created atomically. A folder that already holds this dataset is left unchanged.

    Args:
        out_dir: Folder to create.
        train: Number of training images.
        val: Number of validation images.
        seed: Random seed of the images.

    Returns:
        ``out_dir`` as a path.

    Raises:
        DatasetError: The folder has other content.
    """
    out_dir = Path(out_dir)
    counts = dict(zip(SPLITS, (train, val), strict=True))
    info = {'description': 'effdet_plugin scenes', 'version': VERSION, 'seed': seed, **counts}
    if not out_dir.exists() or not any(out_dir.iterdir()):
        with write_errors(out_dir):
            _make(out_dir, counts, seed, info)
    if not _holds(out_dir, info):
        raise DatasetError(f'{out_dir} has other content; remove it or choose another folder')
    return out_dir


def _make(out_dir: Path, counts: dict[str, int], seed: int, info: dict[str, Any]) -> None:
    """Write into a temporary folder, then rename it, unless another process has made it."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}-', dir=out_dir.parent))
    try:
        _write_splits(part, counts, seed, info)
        # mkdtemp gives access to its owner only, whatever the umask says.
        part.chmod((part / 'annotations').stat().st_mode)
        os.replace(part, out_dir)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _holds(folder: Path, info: dict[str, Any]) -> bool:
    """Return whether a folder was made with the same arguments."""
    path = folder / 'annotations' / f'{SPLITS[-1]}.json'
    return path.is_file() and json.loads(path.read_text()).get('info') == info


def _write_splits(folder: Path, counts: dict[str, int], seed: int, info: dict[str, Any]) -> None:
    """Write images and annotation files into an empty folder."""
    (folder / 'annotations').mkdir()
    with tqdm(total=sum(counts.values()), desc='drawing scenes', unit='img') as bar:
        for split, count in counts.items():
            (folder / split).mkdir()
            coco = coco_of(_write_images(bar, folder / split, seed, split, count), info)
            (folder / 'annotations' / f'{split}.json').write_text(json.dumps(coco))


def _write_images(
    bar: 'tqdm[Any]', folder: Path, seed: int, split: str, count: int
) -> Iterator[Drawn]:
    """Write the images of a split; yield (file name, (height, width), objects) of each."""
    for index in range(count):
        image, objects = scene(seed, split, index)
        name = f'scene_{index:04d}.jpg'
        bgr = np.ascontiguousarray(image[..., ::-1])
        if not cv2.imwrite(str(folder / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise DatasetError(f'cannot write {folder / name}; is the disk full?')
        bar.update()
        yield name, (image.shape[0], image.shape[1]), objects


def coco_of(drawn: Iterable[Drawn], info: dict[str, Any]) -> dict[str, Any]:
    """Return annotations in COCO format; ids start at 1.

    Args:
        drawn: File name, (height, width) and objects of each image.
        info: Describes the dataset.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, (height, width), objects in drawn:
        images.append({'id': len(images) + 1, 'file_name': name, 'height': height, 'width': width})
        for thing in objects:
            x1, y1, x2, y2 = thing.box
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': len(images),
                    'category_id': thing.label + 1,
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'area': thing.area,
                    'iscrowd': 0,
                }
            )
    categories = [{'id': index, 'name': name} for index, name in enumerate(CLASSES, 1)]
    return {'info': info, 'images': images, 'annotations': annotations, 'categories': categories}


def showcase(detector: Detector, coco: COCO, image_dir: Path, count: int = 3) -> RGBImage:
    """Draw predictions beside the ground truth, for the images with the most classes.

    Args:
        detector: Detections above its ``score_thr`` are drawn.
        coco: Annotations; categories are matched to the detector's classes by name.
        image_dir: Folder of the image files.
        count: Number of images.

    Returns:
        One image (H, W, 3), with a row for each of them.

    Raises:
        DatasetError: There are no images, or a class is unknown to the detector.
    """
    image_ids = sorted(coco.getImgIds(), key=lambda image_id: _richness(coco, image_id))
    if not image_ids:
        raise DatasetError(f'no images of {image_dir} in the annotations')
    rows = []
    for record in coco.loadImgs(image_ids[: -count - 1 : -1]):
        image = read_image(image_dir / record['file_name'])
        (sample,) = detector(image)
        truth = _truth(coco, record['id'], detector.classes)
        rows.append(
            side_by_side(image, Drawable.of(sample.pred_instances), truth, detector.classes)
        )
    return stack(rows)


def _richness(coco: COCO, image_id: int) -> tuple[int, int]:
    """Return the number of classes and the number of objects of an image."""
    annotations = coco.imgToAnns[image_id]
    return len({one['category_id'] for one in annotations}), len(annotations)


def _truth(coco: COCO, image_id: int, classes: tuple[str, ...]) -> Drawable:
    """Return the ground-truth boxes of an image, without crowds."""
    annotations = [one for one in coco.imgToAnns[image_id] if not one.get('iscrowd')]
    names = [coco.cats[one['category_id']]['name'] for one in annotations]
    unknown = set(names) - set(classes)
    if unknown:
        raise DatasetError(f'the detector has no class {min(unknown)!r}')
    boxes = np.array([one['bbox'] for one in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Drawable(boxes, np.array([classes.index(name) for name in names], np.int64))
