"""Which boxes no anchor of a config reaches, and anchors that would reach them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from numpy.typing import NDArray

from effdet_plugin.config import find_sizes, resize_mode_of
from effdet_plugin.config.schema import dicts_below
from effdet_plugin.own_data.dataset import DatasetDescription
from effdet_plugin.task_modules.anchor_generator import EfficientDetAnchorGenerator

REACH_IOU = 0.5
_TRIED_BOXES = 1500  # on which other anchors are tried
_WORTH_A_CHANGE = 0.7  # of the missed boxes may be left for a suggestion
_SCALE_FACTORS = (1.0, 0.75, 0.5, 1 / 3, 0.25, 1.5, 2.0)
_RATIOS = ([1.0, 1.5, 1 / 1.5], [1.0, 2.0, 0.5], [1.0, 3.0, 1 / 3], [1.0, 5.0, 0.2])
_SIZE_FACTORS = (1.5, 2.0, 3.0)

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """How well the anchors of a config fit the boxes of a dataset.

    Args:
        size: Height and width of the network's input.
        boxes: (n, 4) the boxes in its pixels.
        best_iou: (n,) IoU of each with its best anchor.
        sides: (m, 2) width and height of all anchor shapes.
        advice: Anchors that would reach more, as options; '' where none are better.
    """

    size: tuple[int, int]
    boxes: Boxes
    best_iou: NDArray[np.float64]
    sides: NDArray[np.float64]
    advice: str

    @property
    def missed(self) -> float:
        """The share of the boxes that no anchor reaches at IoU 0.5."""
        return float((self.best_iou < REACH_IOU).mean()) if len(self.best_iou) else 0.0


def anchor_reach(cfg: Config, description: DatasetDescription) -> Reach | None:
    """Compare the training boxes with the anchors of a config; None if it has no anchors.

    Args:
        cfg: With ``model.bbox_head.anchor_generator`` or that of ``model.rpn_head``.
        description: Its boxes are scaled as the images are by the test pipeline.
    """
    place, node = _generator_node(cfg)
    size = _input_size(cfg)
    if node is None or size is None:
        return None
    mode = resize_mode_of((cfg.get('test_dataloader') or {}).get('dataset'))
    is_stretched = mode is not None and mode.startswith('stretch')
    boxes = _input_boxes(description, size, is_stretched)
    generator = TASK_UTILS.build(node)
    if not isinstance(generator, AnchorGenerator):  # points
        return None
    levels = _levels(generator, size)
    ious = best_iou(boxes, levels)
    sides = np.concatenate([level[0, 0, :, 2:] - level[0, 0, :, :2] for level in levels])
    reach = Reach(size, boxes, ious, sides, '')
    if not reach.missed:
        return reach
    advice = _advice(place, node, size, description, is_stretched, reach.missed)
    return Reach(size, boxes, ious, sides, advice)


def best_iou(boxes: Boxes, levels: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the IoU of each box with the best of all anchors.

    Of equal anchors on a grid, the one whose centre is nearest to the box's on both axes has the
    largest IoU, so that one anchor of each shape is compared.

    Args:
        boxes: (n, 4) xyxy.
        levels: For each level its anchors (rows, columns, shapes, 4) xyxy.
    """
    best = np.zeros(len(boxes))
    for level in levels:
        rows = _nearest(boxes[:, 1] + boxes[:, 3], level[:, 0, 0, 1] + level[:, 0, 0, 3])
        columns = _nearest(boxes[:, 0] + boxes[:, 2], level[0, :, 0, 0] + level[0, :, 0, 2])
        for shape in range(level.shape[2]):
            best = np.maximum(best, _iou(boxes, level[rows, columns, shape]))
    return best


def _nearest(values: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the index of the nearest of equally spaced values for each value."""
    step = grid[1] - grid[0] if len(grid) > 1 else 1.0
    return np.clip(np.rint((values - grid[0]) / step), 0, len(grid) - 1).astype(np.intp)


def _iou(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    overlap = sides.clip(min=0).prod(axis=1)
    areas = ((one[:, 2:] - one[:, :2]).prod(axis=1) for one in (boxes, others))
    return overlap / (sum(areas) - overlap)


def _generator_node(cfg: Config) -> tuple[str, dict[str, Any] | None]:
    for head in ('bbox_head', 'rpn_head'):
        node = (cfg.model.get(head) or {}) if isinstance(cfg.model.get(head), dict) else {}
        if node.get('anchor_generator'):
            return f'model.{head}.anchor_generator', node['anchor_generator']
    return '', None


def _input_size(cfg: Config) -> tuple[int, int] | None:
    """Return height and width of the input: the config's, or the scale of its test pipeline."""
    sizes = [value for _, value in find_sizes(cfg)]
    if sizes:
        return int(sizes[0][0]), int(sizes[0][1])
    for loader in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        for _, step in dicts_below(cfg.get(loader) or {}):
            scale = step.get('scale')
            if isinstance(scale, (tuple, list)) and len(scale) == 2:
                return int(min(scale)), int(max(scale))
    return None


def _input_boxes(
    description: DatasetDescription, size: tuple[int, int], is_stretched: bool
) -> Boxes:
    images = description.train.images or [
        image for split in description.splits.values() for image in split or []
    ]
    scaled = []
    for image in images:
        factors = np.array([size[1] / image.width, size[0] / image.height])
        if not is_stretched:
            factors = np.full(2, factors.min())
        scaled.append(image.boxes[~image.crowd] * np.tile(factors, 2))
    return np.concatenate([np.zeros((0, 4)), *scaled])


def _levels(generator: AnchorGenerator, size: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Return the anchors of each level, (rows, columns, shapes, 4) xyxy."""
    height, width = size
    maps = [
        (math.ceil(height / down), math.ceil(width / right)) for right, down in generator.strides
    ]
    more = {'image_size': size} if isinstance(generator, EfficientDetAnchorGenerator) else {}
    tables = generator.grid_priors(maps, device='cpu', **more)
    return [
        table.double().numpy().reshape(*shape, -1, 4)
        for table, shape in zip(tables, maps, strict=True)
    ]


def _advice(
    place: str,
    node: dict[str, Any],
    size: tuple[int, int],
    description: DatasetDescription,
    is_stretched: bool,
    missed: float,
) -> str:
    """Return the options that leave fewest boxes without an anchor, '' if none are worth it."""

    def share(node: dict[str, Any], size: tuple[int, int]) -> float:
        levels = _levels(TASK_UTILS.build(node), size)
        boxes = _input_boxes(description, size, is_stretched)
        step = -(-len(boxes) // _TRIED_BOXES)  # every n-th, rounded up
        return float((best_iou(boxes[::step], levels) < REACH_IOU).mean())

    lines = [
        _best(_other_anchors(place, node), lambda one: share(one, size), missed),
        _best(_other_sizes(node, size), lambda one: share(node, one), missed),
    ]
    return ', or '.join(filter(None, lines))


def _best(tried: Iterator[tuple[str, Any]], share: Callable[[Any], float], missed: float) -> str:
    """Return the first of the best options with the share that it leaves, '' if not worth it."""
    found = [(share(change), option) for option, change in tried]
    left, option = min(found, key=lambda one: round(one[0], 2), default=(1.0, ''))
    return f'{option} ({left:.1%})' if left <= _WORTH_A_CHANGE * missed else ''


def _other_sizes(
    node: dict[str, Any], size: tuple[int, int]
) -> Iterator[tuple[str, tuple[int, int]]]:
    for factor in _SIZE_FACTORS:
        height, width = (int(side * factor) for side in size)
        text = f'{width}' if width == height else f'{width}x{height}'
        yield f'--image-size {text}', (height, width)


def _other_anchors(place: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield changed generators with the options that make them, the nearest to it first."""
    is_ours = TASK_UTILS.get(node['type']) is EfficientDetAnchorGenerator
    ratio_key = 'aspect_ratios' if is_ours else 'ratios'
    base = node.get('octave_base_scale', 4.0 if is_ours else None)
    if not isinstance(base, (int, float)):  # one for each level, or another kind of generator
        return
    for ratios in (node.get(ratio_key, [1.0, 2.0, 0.5]), *_RATIOS):
        for factor in _SCALE_FACTORS:
            change = {'octave_base_scale': round(base * factor, 2), ratio_key: list(ratios)}
            texts = [
                f'{place}.{key}={_text(value)}'
                for key, value in change.items()
                if value != node.get(key, base if key == 'octave_base_scale' else None)
            ]
            if texts:
                yield f'--cfg-options {" ".join(texts)}', {**node, **change}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return (
            '['
            + ','.join(f'{one:.3g}' if isinstance(one, float) else str(one) for one in value)
            + ']'
        )
    return f'{value:g}'
