"""The synthetic scenes: deterministic, with exact boxes, written atomically."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO

from effdet_plugin.demo import scene_painter, scenes
from effdet_plugin.demo.scene_painter import CLASSES
from effdet_plugin.demo.scenes import make_scenes, scene
from effdet_plugin.errors import DatasetError, WriteError


def _pixels(path: Path) -> NDArray[Any]:
    return np.asarray(cv2.imread(str(path)))


def _digest(folder: Path) -> dict[str, str]:
    """Hash the pixels of every image and the text of every json."""
    digests = {}
    for path in sorted(folder.rglob('*.*')):
        data = _pixels(path).tobytes() if path.suffix == '.jpg' else path.read_bytes()
        digests[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return digests


def test_scene__depends_on_its_three_numbers_only() -> None:
    first, objects = scene(0, 'train', 3)
    again, objects_again = scene(0, 'train', 3)
    assert objects == objects_again
    np.testing.assert_array_equal(first, again)
    others = [scene(1, 'train', 3), scene(0, 'val', 3), scene(0, 'train', 4)]
    assert all(not np.array_equal(first, other) for other, _ in others)


def test_scene__boxes_lie_inside_and_are_visible() -> None:
    labels = set()
    min_side, max_side = scene_painter.SIDES_PX
    for index in range(40):
        image, objects = scene(0, 'val', index)
        assert image.dtype == np.uint8
        assert all(min_side <= side <= max_side for side in image.shape[:2])
        for thing in objects:
            x1, y1, x2, y2 = thing.box
            assert 0 <= x1 < x2 <= image.shape[1]
            assert 0 <= y1 < y2 <= image.shape[0]
            assert 0 < thing.area <= (x2 - x1) * (y2 - y1)
            labels.add(thing.label)
    assert labels == set(range(len(CLASSES)))


def test_describe__box_spans_the_visible_pixels_exactly() -> None:
    seen = np.zeros((20, 30), np.bool_)
    seen[4:9, 7:12] = True
    seen[9, 20] = True
    described = scene_painter._describe(scene_painter.Layer(2, seen, 100))
    assert described == scene_painter.SceneObject(2, (7, 4, 21, 10), 26)


def test_add_object__the_hidden_part_of_a_lower_object_is_not_in_its_box() -> None:
    """Every object's box ends where a later object covers it."""
    rng = np.random.default_rng(5)
    canvas = scene_painter._background(rng, 260, 260)
    layers: list[scene_painter.Layer] = []
    for _ in range(30):
        layers = scene_painter._add_object(rng, canvas, layers)
    cover = np.sum([layer.seen for layer in layers], axis=0)
    assert len(layers) > 3
    assert cover.max() == 1  # no pixel belongs to two objects
    assert any(layer.seen.sum() < layer.area for layer in layers)
    assert all(layer.seen.sum() >= scene_painter.MIN_VISIBLE * layer.area for layer in layers)


@pytest.mark.parametrize('name', CLASSES)
def test_paint__a_shape_stands_out_of_a_plain_ground(name: str) -> None:
    rng = np.random.default_rng(0)
    canvas = np.full((200, 200, 3), 128, np.float32)
    stamp = scene_painter._stamp(rng, scene_painter.OUTLINES[name], (200, 200), (60, 61))
    scene_painter._paint(rng, canvas, stamp)
    window, alpha = stamp.inside((200, 200))
    changed = np.abs(canvas[window] - 128).max(axis=2) > 5
    assert changed[alpha > 0.9].mean() > 0.9
    assert not changed[alpha == 0].any()


def test_make_scenes__same_bytes_each_time_and_readable_by_pycocotools(tmp_path: Path) -> None:
    first = make_scenes(tmp_path / 'a', train=3, val=2)
    second = make_scenes(tmp_path / 'b', train=3, val=2)
    assert _digest(first) == _digest(second)
    coco = COCO(str(first / 'annotations' / 'train.json'))
    assert [category['name'] for category in coco.dataset['categories']] == list(CLASSES)
    for image in coco.dataset['images']:
        pixels = _pixels(first / 'train' / image['file_name'])
        assert pixels.shape[:2] == (image['height'], image['width'])
    assert len(coco.dataset['images']) == 3


def test_make_scenes__a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / 'a', train=1, val=1)
    mark = folder / 'train' / 'scene_0000.jpg'
    before = mark.stat().st_mtime_ns
    make_scenes(folder, train=1, val=1)
    assert mark.stat().st_mtime_ns == before
    with pytest.raises(DatasetError, match=r'other content.*remove it'):
        make_scenes(folder, train=2, val=1)


def test_make_scenes__another_process_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = scenes._write_splits

    def slow(folder: Path, *args: Any) -> None:
        write(folder, *args)
        monkeypatch.setattr(scenes, '_write_splits', write)
        make_scenes(tmp_path / 'a', train=1, val=1)

    monkeypatch.setattr(scenes, '_write_splits', slow)
    folder = make_scenes(tmp_path / 'a', train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ['a']
    assert len(list(folder.rglob('*.jpg'))) == 2


def test_make_scenes__nothing_is_left_of_a_broken_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> bool:
        return False

    monkeypatch.setattr(cv2, 'imwrite', full_disk)
    with pytest.raises(DatasetError, match='disk full'):
        make_scenes(tmp_path / 'a', train=1, val=1)
    assert list(tmp_path.iterdir()) == []


def test_make_scenes__a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'val.json').write_text(json.dumps({'images': []}))
    with pytest.raises(DatasetError):
        make_scenes(tmp_path, train=1, val=1)


def test_make_scenes__has_the_usual_mode_or_says_what_is_in_the_way(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = make_scenes(tmp_path / 'scenes', 1, 1)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (folder, *folder.rglob('*'))}
    assert modes == {0o700, 0o600}
    (tmp_path / 'a_file').touch()
    with pytest.raises(WriteError, match='a_file/scenes: cannot be opened or written'):
        make_scenes(tmp_path / 'a_file' / 'scenes', 1, 1)
