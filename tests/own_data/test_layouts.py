"""Every kind of folder that labelling tools write: read or refused, counted, left untouched."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_faults import COCO_FAULTS
from coco_layouts import COCO_LAYOUTS
from layout_builder import CLASSES, FIRST, HEIGHT, SECOND, WIDTH, Layout, fingerprint
from voc_layouts import VOC_LAYOUTS
from yolo_layouts import CSV_LAYOUTS, YOLO_LAYOUTS

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data import DatasetDescription, read_dataset, with_validation
from support import shared_dir

LAYOUTS = {
    f'{kind}-{name}': layout
    for kind, layouts in (
        ('coco', COCO_LAYOUTS | COCO_FAULTS),
        ('voc', VOC_LAYOUTS),
        ('yolo', YOLO_LAYOUTS),
        ('csv', CSV_LAYOUTS),
    )
    for name, layout in layouts.items()
}


def _shared_layouts() -> list[dict[str, Any]]:
    shared = shared_dir()
    path = shared / 'data/layouts/expected.json' if shared else Path('absent')
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []


def _read(path: Path) -> tuple[DatasetDescription | None, str, set[str]]:
    """The description with both splits (None if refused), the messages, the kinds of finding."""
    kinds: set[str] = set()
    try:
        description = read_dataset(path)
        kinds |= {finding.kind for finding in description.findings}
        description = with_validation(description.check())
    except DatasetError as error:
        return None, str(error), kinds
    kinds |= {finding.kind for finding in description.findings}
    return description, '\n'.join(description.remarks()), kinds


def _counts(description: DatasetDescription) -> tuple[int, int, int]:
    val = description.splits['val']
    assert val is not None
    return len(description.train), len(val), description.train.num_targets + val.num_targets


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout__is_read_or_refused_as_it_should(layout: Layout, tmp_path: Path) -> None:
    layout.build(tmp_path)
    before = fingerprint(tmp_path)
    description, said, kinds = _read(tmp_path / layout.data)
    assert fingerprint(tmp_path) == before
    assert (description is None) == layout.error, said
    for words in layout.says:
        assert words in said
    assert set(layout.finds) <= kinds
    if description is not None:
        train, val, boxes = _counts(description)
        assert boxes == layout.boxes
        assert description.classes == layout.classes
        if layout.val is None:
            assert train + val == layout.train
            assert 'split_made' in kinds
        else:
            assert (train, val) == (layout.train, layout.val)


# Every image of these has the same two boxes.
UNCHANGED = [
    'coco-original_tree',
    'coco-roboflow',
    'coco-via_flat_polygon',
    'coco-pylabel_texts',
    'coco-box_objects_item_id',
    'coco-lying_images',
    'coco-size_swapped',
    'voc-original',
    'voc-cvat',
    'voc-roboflow',
    'voc-size_zero',
    'yolo-ultralytics',
    'yolo-fiftyone_windows',
    'yolo-cvat',
]


@pytest.mark.parametrize('name', UNCHANGED)
def test_layout__boxes_are_where_they_were_drawn(name: str, tmp_path: Path) -> None:
    LAYOUTS[name].build(tmp_path)
    description = read_dataset(tmp_path).check()
    drawn = {
        label: [x, y, x + width, y + height]
        for label, (x, y, width, height) in zip(CLASSES, (FIRST, SECOND), strict=True)
    }
    for image in (image for split in description.splits.values() for image in split or []):
        assert (image.width, image.height) == (WIDTH, HEIGHT)
        found = {
            description.classes[label]: box
            for label, box in zip(image.labels, image.boxes, strict=True)
        }
        assert found.keys() == drawn.keys()
        for label, box in found.items():
            np.testing.assert_allclose(box, drawn[label], atol=1e-6)


@pytest.mark.parametrize(
    'expected',
    _shared_layouts() or [pytest.param({}, marks=pytest.mark.skip(reason='no shared layouts'))],
    ids=lambda expected: expected.get('folder', 'absent'),
)
def test_shared_layout__behaves_as_its_entry_says(expected: dict[str, Any]) -> None:
    shared = shared_dir()
    assert shared is not None
    folder = shared / 'data/layouts' / expected['folder']
    before = fingerprint(folder)
    description, said, _ = _read(folder)
    assert fingerprint(folder) == before
    if expected['reads'] != 'either':
        assert (description is not None) == expected['reads'], said
    for group in expected['must_say']:
        assert any(word.lower() in said.lower() for word in group), said
    if description is not None:
        _compare(description, expected)


def _compare(description: DatasetDescription, expected: dict[str, Any]) -> None:
    train, val, boxes = _counts(description)
    if expected['classes'] is not None:
        assert list(description.classes) == expected['classes']
    if expected['boxes'] is not None:
        assert boxes == expected['boxes']
    if expected['train_images'] is not None:
        wanted = expected['train_images'] + (expected['val_images'] or 0)
        assert train + val == wanted
        assert expected['val_images'] in (None, val)
