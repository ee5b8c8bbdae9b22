"""AutoAugment and RandAugment for detection: operations on images, on boxes, or inside them.

Source: Zoph et al. 2019 (arXiv 1906.11172); google/automl efficientdet/aug/autoaugment.py, at
commit 6a54c87. What moves images and boxes is mmdet's. Three differences: boxes are not rounded to
whole pixels, one that has left the image is dropped (there it stays, as 5% of the image at its
edge), and objects that are crowds are not changed by what is done inside boxes.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import get_box_tensor

from effdet_plugin.datasets import image_ops as ops
from effdet_plugin.datasets.policies import POLICIES, RANDAUGMENT, Policy, Step
from effdet_plugin.errors import ConfigError

Results = dict[str, Any]

# Pixels at level 10.
_TRANSLATE, _TRANSLATE_INSIDE, _CUTOUT_INSIDE = 250.0, 120.0, 50.0
# As a share of the box at level 10.
_BOX_CUTOUT = 0.75
# So that not too many boxes are changed that lie close to each other.
_SHARE_INSIDE = 1 / 3

_ON_IMAGES: dict[str, ops.Operation] = {
    'AutoContrast': ops.auto_contrast,
    'Equalize': ops.equalize,
    'Posterize': ops.posterize,
    'Solarize': ops.solarize,
    'SolarizeAdd': ops.solarize_add,
    'Color': ops.color,
    'Contrast': ops.contrast,
    'Brightness': ops.brightness,
    'Sharpness': ops.sharpness,
    'Cutout': ops.cutout,
}
_INSIDE_BOXES: dict[str, ops.Operation] = {
    'Rotate_Only_BBoxes': ops.rotate,
    'ShearX_Only_BBoxes': partial(ops.shear, direction='horizontal'),
    'ShearY_Only_BBoxes': partial(ops.shear, direction='vertical'),
    'TranslateX_Only_BBoxes': partial(
        ops.translate, direction='horizontal', largest=_TRANSLATE_INSIDE
    ),
    'TranslateY_Only_BBoxes': partial(
        ops.translate, direction='vertical', largest=_TRANSLATE_INSIDE
    ),
    'Flip_Only_BBoxes': ops.flip,
    'Solarize_Only_BBoxes': ops.solarize,
    'Equalize_Only_BBoxes': ops.equalize,
    'Cutout_Only_BBoxes': partial(ops.cutout, largest=_CUTOUT_INSIDE),
}
_TO_EITHER_SIDE = ('Rotate', 'Shear', 'Translate')
_MOVES = (
    *('Rotate_BBox', 'ShearX_BBox', 'ShearY_BBox'),
    *('TranslateX_BBox', 'TranslateY_BBox'),
)
OPERATIONS = (*_ON_IMAGES, *_INSIDE_BOXES, *_MOVES, 'BBox_Cutout')


@TRANSFORMS.register_module()
class DetectionAutoAugment(BaseTransform):
    """One of a policy's sequences of operations for each image, or RandAugment.

    It takes uint8 RGB images of the files' size: some operations move by a number of pixels, up to
    250, which is made for images of about 640 px as COCO's.

    Args:
        policy: ``'v0'`` (the paper's), ``'v1'``, ``'v2'``, ``'v3'``, ``'randaug'``, or sequences of
            (operation, probability, level), the level from 0 to 10.
        num_layers: Of ``'randaug'``: how many operations each image gets.
        magnitude: Of ``'randaug'``: their level; the reference's 15 is beyond the policies' range.

    Raises:
        ConfigError: An unknown policy or operation, a probability outside 0 to 1, a level below 0;
            on use, an image that is not uint8 in three channels.
    """

    def __init__(
        self,
        policy: str | Sequence[Sequence[Step]] = 'v0',
        num_layers: int = 1,
        magnitude: float = 15.0,
    ) -> None:
        self.num_layers, self.magnitude = num_layers, magnitude
        self.policy: Policy | None = None if policy == 'randaug' else _checked(policy)

    def transform(self, results: Results) -> Results:
        """Apply what numpy's global generator draws to ``img`` and, if there, ``gt_bboxes``."""
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ConfigError(
                f'DetectionAutoAugment: an image of {image.dtype} {image.shape}; put it before '
                'whatever changes uint8 RGB images'
            )
        for name, prob, level in self.draw():
            results = apply(results, name, prob, level)
        if results.get('gt_bboxes') is not None:
            results = _without_empty(results)
        return results

    def draw(self) -> Sequence[Step]:
        """Draw the operations of an image."""
        if self.policy is None:
            names = np.random.choice(RANDAUGMENT, self.num_layers)
            return [(str(name), 1.0, self.magnitude) for name in names]
        return self.policy[np.random.randint(len(self.policy))]


def _checked(policy: Any) -> Policy:
    if isinstance(policy, str):
        if policy not in POLICIES:
            known = ', '.join((*POLICIES, 'randaug'))
            raise ConfigError(f'DetectionAutoAugment: policy={policy!r}; choose one of {known}')
        return POLICIES[policy]
    try:
        found = tuple(tuple((str(n), float(p), float(m)) for n, p, m in row) for row in policy)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(found):
        raise ConfigError(
            'DetectionAutoAugment: give the name of a policy, or lists of (operation, probability, '
            'level)'
        )
    for name, prob, level in (step for row in found for step in row):
        if name not in OPERATIONS:
            known = ', '.join(OPERATIONS)
            raise ConfigError(f'DetectionAutoAugment: no operation {name!r}; there are {known}')
        if not 0 <= prob <= 1 or not level >= 0:
            raise ConfigError(
                f'DetectionAutoAugment: {name} with probability {prob} and level {level}; give 0 '
                'to 1, and 0 to 10'
            )
    return found


def apply(results: Results, name: str, prob: float, level: float) -> Results:
    """Apply one operation to an image with a probability.

    Args:
        results: mmdet's, with ``img``, ``img_shape`` and perhaps ``gt_bboxes``.
        name: One of `OPERATIONS`.
        prob: Of an operation inside boxes: thrice the probability for each box.
        level: From 0 to 10.
    """
    if name in _INSIDE_BOXES:
        return _inside_boxes(results, name, prob * _SHARE_INSIDE, level)
    if np.random.random() >= prob:
        return results
    if name in _MOVES:
        return _moved(results, name, level)
    if name in _ON_IMAGES:
        results['img'] = _ON_IMAGES[name](results['img'], level)
        return results
    return _cut_out_of_a_box(results, level)


def _moved(results: Results, name: str, level: float) -> Results:
    """Move image and boxes by mmdet's transform of that name, to either side."""
    kind = name.removesuffix('_BBox')
    share = level / ops.MAX_LEVEL * (1 if np.random.random() < 0.5 else -1)
    if kind == 'Rotate':
        magnitude = share * 30.0
    elif kind.startswith('Shear'):
        magnitude = share * 0.3
    else:
        height, width = results['img'].shape[:2]
        # mmdet truncates this share of the side to whole pixels; a half more gives the number.
        pixels = int(share * _TRANSLATE)
        magnitude = (pixels + math.copysign(0.5, pixels)) / (
            width if kind == 'TranslateX' else height
        )
    step = TRANSFORMS.build(dict(type=kind, interpolation='nearest', img_border_value=ops.GREY))
    step._get_mag = lambda: magnitude  # its own are rounded to tenths: of a share of a side
    return step(results)


def _inside_boxes(results: Results, name: str, prob: float, level: float) -> Results:
    """Change the pixels inside of some boxes, in random order."""
    if name.startswith(_TO_EITHER_SIDE) and np.random.random() < 0.5:
        level = -level
    windows = _windows(results)
    image = results['img'].copy()
    for number in np.random.permutation(len(windows)):
        if np.random.random() < prob:
            rows, columns = windows[number]
            image[rows, columns] = _INSIDE_BOXES[name](image[rows, columns].copy(), level)
    results['img'] = image
    return results


def _cut_out_of_a_box(results: Results, level: float) -> Results:
    """Grey out a part of one box: 0.75 of its sides at level 10, around any of its pixels."""
    windows = _windows(results)
    if not windows:
        return results
    window = windows[np.random.randint(len(windows))]
    centre = [int(np.random.randint(side.start, side.stop)) for side in window]
    share = level / ops.MAX_LEVEL * _BOX_CUTOUT
    reach = [int(share * (side.stop - side.start) / 2) for side in window]
    results['img'] = ops.erase(results['img'], (centre[0], centre[1]), (reach[0], reach[1]))
    return results


def _windows(results: Results) -> list[tuple[slice, slice]]:
    """Return (rows, columns) of the pixels that each box touches, without crowds'."""
    if results.get('gt_bboxes') is None:
        return []
    boxes = get_box_tensor(results['gt_bboxes']).numpy()
    boxes = boxes[~np.asarray(results.get('gt_ignore_flags', np.zeros(len(boxes))), bool)]
    height, width = results['img'].shape[:2]
    first = np.floor(boxes[:, :2]).clip(0).astype(int).tolist()
    last = np.ceil(boxes[:, 2:]).clip(None, (width, height)).astype(int).tolist()
    pairs = zip(first, last, strict=True)
    return [
        (slice(top, bottom), slice(left, right))
        for (left, top), (right, bottom) in pairs
        if top < bottom and left < right
    ]


def _without_empty(results: Results) -> Results:
    """Drop the boxes of which nothing is left, with their other keys."""
    step = TRANSFORMS.build(dict(type='FilterAnnotations', min_gt_bbox_wh=(0, 0), keep_empty=False))
    return step(results)
