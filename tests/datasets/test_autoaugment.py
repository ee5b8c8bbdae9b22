"""AutoAugment: operations against Pillow's and numpy's, boxes with their pixels, the tables."""

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from PIL import Image, ImageEnhance, ImageOps

from effdet_plugin.datasets import DetectionAutoAugment, image_ops
from effdet_plugin.datasets.autoaugment import OPERATIONS, apply
from effdet_plugin.datasets.policies import POLICIES
from effdet_plugin.errors import ConfigError

BOXES = [[10.0, 20.0, 50.0, 60.0], [60.5, 10.25, 100.0, 70.0], [0.0, 0.0, 120.0, 90.0]]
MOVES = [name for name in OPERATIONS if name.endswith('_BBox')]
INSIDE = [name for name in OPERATIONS if name.endswith('_Only_BBoxes')]
NO_MOVES = ['Flip_Only_BBoxes', 'Solarize_Only_BBoxes', 'Equalize_Only_BBoxes']
POLICY_NAMES = [*POLICIES, 'randaug']


def photo(height: int = 90, width: int = 120) -> np.ndarray:
    """Smooth colours with some noise, of less than the whole range."""
    rows, columns = np.mgrid[:height, :width] / (height, width)[0]
    noise = np.random.default_rng(0).normal(0, 5, (height, width, 3))
    base = np.stack([rows * 150 + 20, columns * 90 + 50, (rows + columns) * 60 + 30], -1)
    return (base + noise).clip(5, 240).astype(np.uint8)


def sample(boxes: Any = BOXES, **more: Any) -> dict[str, Any]:
    image = photo()
    return dict(
        img=image,
        img_shape=image.shape[:2],
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.zeros(len(boxes), bool),
        **more,
    )


def tensor(results: dict[str, Any]) -> np.ndarray:
    found: np.ndarray = results['gt_bboxes'].tensor.numpy()
    return found


@pytest.mark.parametrize('policy', POLICY_NAMES)
def test_policy__what_it_keeps(policy: str) -> None:
    step = TRANSFORMS.build(dict(type='DetectionAutoAugment', policy=policy))
    original = photo()
    changed, dropped = 0, 0
    for seed in range(60):
        found = []
        for _ in range(2):
            np.random.seed(seed)
            given = sample()
            found.append(step(given))
        one, again = found
        assert (one['img'] == again['img']).all()
        assert (tensor(one) == tensor(again)).all()
        assert one['img'].shape == original.shape
        assert one['img'].dtype == np.uint8
        boxes = tensor(one)
        assert boxes.dtype == np.float32
        assert len(boxes) == len(one['gt_bboxes_labels']) == len(one['gt_ignore_flags'])
        assert (boxes >= 0).all()
        assert (boxes <= [120, 90] * 2).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        changed += int((one['img'] != original).any())
        dropped += len(BOXES) - len(boxes)
    assert changed > 20
    assert dropped < 60  # of 180


@pytest.mark.parametrize('policy', POLICY_NAMES)
@pytest.mark.parametrize('size', [(1, 1), (2, 300), (33, 7)])
def test_policy__odd_images_with_and_without_boxes(policy: str, size: tuple[int, int]) -> None:
    step = DetectionAutoAugment(policy)
    for boxes in ([], [[0.0, 0, size[1], size[0]]], [[0.25, 0.25, 0.5, 0.5]]):
        for _ in range(20):
            given = sample(boxes) | dict(img=photo(*size), img_shape=size)
            found = step(given)
            assert found['img'].shape == (*size, 3)
            assert len(tensor(found)) == len(found['gt_bboxes_labels']) <= len(boxes)
    bare = step(dict(img=photo(*size), img_shape=size))
    assert bare.keys() <= {'img', 'img_shape', 'homography_matrix'}


def test_policies__all_operations_are_known_and_v1_begins_with_v0() -> None:
    steps = [step for policy in POLICIES.values() for row in policy for step in row]
    assert {name for name, _, _ in steps} <= {*OPERATIONS}
    assert [len(policy) for policy in POLICIES.values()] == [5, 20, 15, 15]
    assert POLICIES['v1'][:5] == POLICIES['v0']
    assert all(0 <= prob <= 1 and 0 <= level <= 10 for _, prob, level in steps)


@pytest.mark.parametrize('name', [*MOVES, *(n for n in INSIDE if n not in NO_MOVES)])
def test_level_0__leaves_what_is_moved(name: str) -> None:
    found = apply(sample(), name, 1.0, 0.0)
    assert (found['img'] == photo()).all()
    assert np.allclose(tensor(found), BOXES, atol=1e-4)


@pytest.mark.parametrize('name', INSIDE)
def test_inside_boxes__the_rest_and_the_boxes_stay(name: str) -> None:
    boxes, inside = BOXES[:2], np.zeros((90, 120), bool)
    inside[20:60, 10:50] = inside[10:70, 60:100] = True
    changed = 0
    for _ in range(40):
        given = sample(boxes)
        before = given['img'].copy()
        found = apply(given, name, 1.0, 5.0)
        assert (found['img'][~inside] == photo()[~inside]).all()
        assert (given['img'] is found['img']) or (given['img'] == before).all()
        assert (tensor(found) == boxes).all()
        changed += int((found['img'] != photo()).any())
    # Each of two boxes with a third: 5 of 9. A cut-out may be cut by less.
    assert 12 < changed < 33
    crowds = sample(boxes) | dict(gt_ignore_flags=np.ones(2, bool))
    assert (apply(crowds, name, 1.0, 5.0)['img'] == photo()).all()


@pytest.mark.parametrize('name', ['Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY'])
def test_moves__boxes_go_with_their_pixels(name: str) -> None:
    """A bright rectangle's bounding box, up to a pixel; an axis-aligned box is tight for it."""
    signs = set()
    for seed in range(12):
        np.random.seed(seed)
        image = np.zeros((300, 400, 3), np.uint8)
        image[120:180, 150:250] = 255
        given = sample([[150.0, 120, 250, 180]]) | dict(img=image, img_shape=(300, 400))
        found = apply(given, f'{name}_BBox', 1.0, 3.0)
        rows, columns = np.nonzero(found['img'][..., 0] == 255)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert edges == pytest.approx(tensor(found)[0].tolist(), abs=1.5)
        assert (found['img'] == image_ops.GREY).any()
        homography = found['homography_matrix']
        size = {
            'Rotate': np.degrees(np.arcsin(abs(homography[0, 1]))) / 30,
            'ShearX': abs(homography[0, 1]) / 0.3,
            'ShearY': abs(homography[1, 0]) / 0.3,
            'TranslateX': abs(homography[0, 2]) / 250,
            'TranslateY': abs(homography[1, 2]) / 250,
        }[name]
        assert size == pytest.approx(0.3, abs=1e-6)
        signs.add(bool(homography.sum() > np.eye(3).sum()))
    if name != 'Rotate':
        assert signs == {True, False}


def test_moves__a_box_that_has_left_the_image_is_dropped() -> None:
    given = sample([[0.0, 0, 20, 90], [100.0, 0, 120, 90]])
    found = apply(given, 'TranslateX_BBox', 1.0, 3.0)
    step = DetectionAutoAugment([[('Cutout', 0.0, 1)]])
    found = step(found)
    assert len(tensor(found)) == 1
    assert found['gt_bboxes_labels'].tolist() in ([0], [1])


def test_moves__masks_go_along() -> None:
    mask = np.zeros((1, 90, 120), np.uint8)
    mask[0, 20:60, 10:50] = 1
    given = sample(BOXES[:1], gt_masks=BitmapMasks(mask, 90, 120))
    found = DetectionAutoAugment([[('TranslateX_BBox', 1.0, 0.4)]])(given)
    columns = np.flatnonzero(found['gt_masks'].masks[0].any(0))
    assert [columns[0], columns[-1] + 1] == tensor(found)[0, ::2].tolist()
    assert abs(tensor(found)[0, 0] - 10) == 10


PILLOW = {
    'AutoContrast': (lambda image, _: ImageOps.autocontrast(image), 0),
    'Equalize': (lambda image, _: ImageOps.equalize(image), 0),
    'Color': (lambda image, factor: ImageEnhance.Color(image).enhance(factor), 2),
    'Contrast': (lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), 2),
    'Brightness': (lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), 1),
    'Sharpness': (lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), 2),
}


@pytest.mark.parametrize('name', PILLOW)
@pytest.mark.parametrize('level', [0.0, 4.0, 10.0])
def test_colours__as_pillows(name: str, level: float) -> None:
    """The reference says of each that it equals Pillow's; sharpness differs at the edge."""
    operation, tolerance = PILLOW[name]
    factor = level / 10 * 1.8 + 0.1
    expected = np.asarray(operation(Image.fromarray(photo()), factor)).astype(int)
    found = apply(sample(), name, 1.0, level)['img'].astype(int)
    assert np.abs(found - expected)[1:-1, 1:-1].max() <= tolerance + (name == 'AutoContrast')


def test_colours__by_their_definition() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    values = image.astype(int)

    def of(name: str, level: float) -> np.ndarray:
        given = dict(img=image.copy(), img_shape=(16, 16))
        return apply(given, name, 1.0, level)['img'].astype(int)

    assert (of('Solarize', 8) == np.where(values < 204, values, 255 - values)).all()
    assert (of('Solarize', 10) == values).all()
    added = np.where(values < 128, np.minimum(values + 66, 255), values)
    assert (of('SolarizeAdd', 6) == added).all()
    assert (of('Posterize', 10) == values // 16 * 16).all()
    assert (of('Posterize', 2) == values // 128 * 128).all()
    assert (
        of('SolarizeAdd', 15) == np.where(values < 128, np.minimum(values + 165, 255), values)
    ).all()


def test_cutout__a_grey_square_that_the_edges_cut() -> None:
    areas = []
    for _ in range(50):
        given = dict(img=np.zeros((300, 400, 3), np.uint8), img_shape=(300, 400))
        grey = apply(given, 'Cutout', 1.0, 2.0)['img'] == image_ops.GREY
        rows, columns = np.flatnonzero(grey.any((1, 2))), np.flatnonzero(grey.any((0, 2)))
        assert grey.sum() == 3 * len(rows) * len(columns)
        assert len(rows) <= 40
        assert len(columns) <= 40
        areas.append(len(rows) * len(columns))
    assert max(areas) == 40 * 40
    assert min(areas) < 40 * 40


def test_box_cutout__a_part_of_one_box() -> None:
    for _ in range(50):
        given = sample([[100.0, 60, 180, 160]])
        given |= dict(img=np.zeros((300, 400, 3), np.uint8), img_shape=(300, 400))
        grey = apply(given, 'BBox_Cutout', 1.0, 4.0)['img'][..., 0] == image_ops.GREY
        rows, columns = np.flatnonzero(grey.any(1)), np.flatnonzero(grey.any(0))
        assert (len(rows), len(columns)) == (2 * 15, 2 * 12)  # 0.3 * 100 / 2 and 0.3 * 80 / 2
        assert 60 <= rows[0] + 15 < 160
        assert 100 <= columns[0] + 12 < 180


def test_randaug__number_of_operations() -> None:
    step = DetectionAutoAugment('randaug', num_layers=3, magnitude=5)
    assert [(prob, level) for _, prob, level in step.draw()] == [(1.0, 5)] * 3
    names = {name for _ in range(100) for name, _, _ in step.draw()}
    assert len(names) == 10
    assert names < {*OPERATIONS}


@pytest.mark.parametrize(
    ('policy', 'message'),
    [
        ('v9', "policy='v9'; choose one of v0, v1, v2, v3, randaug"),
        ([], 'give the name of a policy'),
        (3, 'give the name of a policy'),
        ([[('Cutout', 1.0)]], 'give the name of a policy'),
        ([[('Cut', 1.0, 3)]], "no operation 'Cut'; there are AutoContrast"),
        ([[('Cutout', 1.5, 3)]], 'Cutout with probability 1.5'),
        ([[('Cutout', 0.5, -1)]], 'level -1'),
    ],
)
def test_policy__refused(policy: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetectionAutoAugment(policy)


def test_image__refused_after_a_change_of_its_type() -> None:
    with pytest.raises(ConfigError, match='float32'):
        DetectionAutoAugment()(sample() | dict(img=photo().astype(np.float32)))
