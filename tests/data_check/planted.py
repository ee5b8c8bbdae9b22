"""A small COCO set of two splits, sound, and the faults that can be planted into it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 160, 120
NUM_IMAGES = {'train': 8, 'val': 4}
Documents = dict[str, dict[str, Any]]


def draw(path: Path, seed: int) -> None:
    """An image of coloured patches, which differ from seed to seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)


def build(folder: Path) -> Documents:
    """Write the images; return the jsons, which `write` writes."""
    documents: Documents = {}
    for number, (split, count) in enumerate(NUM_IMAGES.items()):
        images, boxes = [], []
        for place in range(1, count + 1):
            name = f'{split}_{place}.jpg'
            draw(folder / split / name, 100 * number + place)
            images.append({'id': place, 'file_name': name, 'width': WIDTH, 'height': HEIGHT})
            for row in range(3):
                box = [10.0 + 50 * row, 20.0 + 3 * place, 40.0, 36.0 + 6 * row]
                boxes.append(
                    {
                        'id': 10 * place + row,
                        'image_id': place,
                        'category_id': 1 + row % 2,
                        'bbox': box,
                        'area': box[2] * box[3],
                        'iscrowd': 0,
                    }
                )
        categories = [{'id': 1, 'name': 'circle'}, {'id': 2, 'name': 'square'}]
        documents[split] = {'images': images, 'annotations': boxes, 'categories': categories}
    return documents


def write(folder: Path, documents: Documents) -> None:
    for split, document in documents.items():
        (folder / f'{split}.json').write_text(json.dumps(document), encoding='utf-8')


Plant = Callable[[Path, Documents], Any]


def _resaved(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        image.resize((WIDTH * 2, HEIGHT * 2)).save(target, quality=60)


def _truncated(folder: Path, documents: Documents) -> None:
    path = folder / 'train' / 'train_2.jpg'
    path.write_bytes(path.read_bytes()[:-300])


def _copied(folder: Path, documents: Documents) -> None:
    path = folder / 'train' / 'train_3.jpg'
    path.write_bytes((folder / 'train' / 'train_4.jpg').read_bytes())


def _copied_across(folder: Path, documents: Documents) -> None:
    _resaved(folder / 'train' / 'train_5.jpg', folder / 'val' / 'val_1.jpg')
    documents['val']['images'][0].update(width=2 * WIDTH, height=2 * HEIGHT)


def _box(documents: Documents, place: int, **values: Any) -> None:
    documents['train']['annotations'][place].update(values)


def _misspelt(folder: Path, documents: Documents) -> None:
    documents['train']['categories'].append({'id': 3, 'name': 'Circles'})
    _box(documents, 6, category_id=3)


def _empty(folder: Path, documents: Documents) -> None:
    kept = [one for one in documents['val']['annotations'] if one['image_id'] != 4]
    documents['val']['annotations'] = kept


def _twice(folder: Path, documents: Documents) -> None:
    _box(documents, 10, bbox=[11, 32, 40, 36], category_id=1)


def _unreadable(folder: Path, documents: Documents) -> None:
    (folder / 'train' / 'train_1.jpg').write_text('no image', encoding='utf-8')


# Kind of finding, the words of the page that place it, how it is planted.
FAULTS: dict[str, tuple[str, Plant]] = {
    'image_unreadable': ('train/train_1.jpg', _unreadable),
    'truncated': ('train/train_2.jpg', _truncated),
    'image_missing': ('train_6.jpg', lambda f, d: (f / 'train/train_6.jpg').unlink()),
    'image_unused': ('train/new.jpg', lambda f, d: draw(f / 'train/new.jpg', 999)),
    'image_copy': ('train/train_4.jpg', _copied),
    'image_copy_across': ('val/val_1.jpg', _copied_across),
    'size_other': ('80x240', lambda f, d: d['train']['images'][6].update(width=80, height=240)),
    'box_clipped': ('annotation 82', lambda f, d: _box(d, 23, bbox=[120, 50, 60, 30])),
    'box_empty': ('annotation 81', lambda f, d: _box(d, 22, bbox=[50, 50, 0, 30])),
    'box_not_numbers': ('annotation 80', lambda f, d: _box(d, 21, bbox=[1, 2, 3])),
    'box_twice': ('annotations 40 and 41', _twice),
    'category_unknown': ('category 77', lambda f, d: _box(d, 14, category_id=77)),
    'class_alike': ("'Circles'", _misspelt),
    'image_without_objects': ('val/val_4.jpg', _empty),
    'box_crowd': ('train/train_8.jpg', lambda f, d: _box(d, 23, iscrowd=1)),
}  # fmt: skip
