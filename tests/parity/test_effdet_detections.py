"""Detections from end to end: a converted checkpoint, and effdet with the same weights.

The weights are the oracle's recipe, whose outputs look like a trained network's. effdet is the
network only: what stands before and behind it in the reference (letter box, anchors, candidates,
decoding, soft-NMS class by class) is written here once more, plainly, so that our parts are
compared with something else than themselves.
"""

import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

import support
from effdet_plugin.config import set_image_size
from effdet_plugin.convert import convert
from effdet_plugin.convert.key_map import invert
from effdet_plugin.convert.key_map_tensorflow import VARIABLES
from effdet_plugin.convert.networks import Structure, state_shapes
from effdet_plugin.inference import Detector

effdet = pytest.importorskip('effdet', reason='compares with effdet from PyPI: pip install effdet')

NUM_CANDIDATES, NUM_DETECTIONS = 5000, 100
SIGMA, SCORE_THR = 0.5, 0.001
MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
MATCHED_SHARE, TOLERANCE = 0.99, 1e-4
Found = tuple[Tensor, Tensor, Tensor]


def letter_box(image: np.ndarray, size: tuple[int, int]) -> tuple[Tensor, float]:
    """Normalised image (1, 3, H, W), zeros below and right of it, and its scale."""
    pixels = ((torch.from_numpy(image).float() - MEAN) / STD).permute(2, 0, 1)[None]
    height, width = image.shape[:2]
    scale = min(np.float32(size[0]) / np.float32(height), np.float32(size[1]) / np.float32(width))
    valid = int(np.float32(height) * scale), int(np.float32(width) * scale)
    resized = F.interpolate(pixels, valid, mode='bilinear', align_corners=False)
    return F.pad(resized, (0, size[1] - valid[1], 0, size[0] - valid[0])), float(scale)


@cache
def reference_anchors(size: tuple[int, int], octave_base_scale: float = 4.0) -> Tensor:
    """Centres and sides (N, 4), (y, x, h, w), by level, row, column, scale, aspect."""
    rows, feature = [], size
    for level in range(1, 8):
        feature = math.ceil(feature[0] / 2), math.ceil(feature[1] / 2)
        if level < 3:
            continue
        stride = size[0] / feature[0], size[1] / feature[1]
        for y in range(feature[0]):
            for x in range(feature[1]):
                centre = (y + 0.5) * stride[0], (x + 0.5) * stride[1]
                for octave in range(3):
                    for aspect in (1.0, 2.0, 0.5):
                        side = octave_base_scale * 2 ** (octave / 3)
                        root = math.sqrt(aspect)
                        rows.append((*centre, side * stride[0] / root, side * stride[1] * root))
    return torch.tensor(rows, dtype=torch.float64)


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """Codes (ty, tx, th, tw) -> boxes xyxy."""
    centre = codes[:, :2] * anchors[:, 2:] + anchors[:, :2]
    half = codes[:, 2:].exp() * anchors[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)[:, [1, 0, 3, 2]]


def overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return shared / (areas + (box[2:] - box[:2]).prod() - shared)


def soft_nms(boxes: Tensor, scores: Tensor) -> tuple[list[int], list[float]]:
    """Indices of the kept boxes of one class, and their decayed scores."""
    scores, kept, values = scores.clone(), [], []
    while len(kept) < NUM_DETECTIONS:
        best = int(scores.argmax())
        if scores[best] <= SCORE_THR:
            break
        kept.append(best)
        values.append(float(scores[best]))
        scores *= torch.exp(-(overlaps(boxes[best], boxes) ** 2) / SIGMA)
        scores[best] = -1  # and it stays below the threshold, whatever it is multiplied with
    return kept, values


def reference_detections(network: nn.Module, image: np.ndarray, size: tuple[int, int]) -> Found:
    """Boxes (N, 4) in pixels of the image, scores and classes, by falling score."""
    pixels, scale = letter_box(image, size)
    with torch.no_grad():
        logits, codes = (
            torch.cat([x[0].permute(1, 2, 0).reshape(-1, width) for x in maps]).double()
            for maps, width in zip(network(pixels), (90, 4), strict=True)
        )
    top, order = logits.flatten().topk(NUM_CANDIDATES)
    anchor, label = order // 90, order % 90
    boxes, scores = decode(codes[anchor], reference_anchors(size)[anchor]), top.sigmoid()
    rows = []
    for number in label.unique().tolist():
        own = torch.nonzero(label == number)[:, 0]
        kept, values = soft_nms(boxes[own], scores[own])
        rows += [(value, number, own[i]) for i, value in zip(kept, values, strict=True)]
    rows = sorted(rows, key=lambda row: -row[0])[:NUM_DETECTIONS]
    index = torch.stack([row[2] for row in rows])
    return (
        boxes[index] / scale,
        torch.tensor([row[0] for row in rows]),
        torch.tensor([row[1] for row in rows]),
    )


def count_matched(ours: Found, theirs: Found) -> int:
    """How many of their detections we have: class, box and score within the tolerance."""
    taken = torch.zeros(len(ours[0]), dtype=torch.bool)
    for box, score, label in zip(*theirs, strict=True):
        limit = TOLERANCE * max(float((box[2:] - box[:2]).max()), 100.0)
        is_near = (ours[0] - box).abs().amax(dim=1) <= limit
        is_same = is_near & (ours[2] == label) & ((ours[1] - score).abs() <= TOLERANCE)
        free = torch.nonzero(is_same & ~taken)[:, 0]
        taken[free[:1]] = True
    return int(taken.sum())


def our_config(size: tuple[int, int]) -> Config:
    """D0 with 90 classes, everything as in the reference."""
    config = Config.fromfile(support.REPOSITORY / 'configs/efficientdet/d0_coco.py')
    config.model.backbone.pretrained = False
    config.model.bbox_head.num_classes = 90
    set_image_size(config, size)
    for step in config.test_dataloader.dataset.pipeline:
        if step.type == 'LetterBox':
            step.resize_dtype = 'float32'
    return config


def write_recipe(path: Path) -> None:
    """The recipe's variables of D0 by TensorFlow's names."""
    structure = Structure('d0')
    empty = {name: torch.zeros(shape) for name, shape in state_shapes(structure).items()}
    shapes = {name: value.shape for name, value in invert(VARIABLES, structure, empty).items()}
    make = support.recipe().value
    np.savez(path, **{name: make('efficientdet-d0', name, s) for name, s in shapes.items()})


def run(paths: list[Path], size: tuple[int, int], folder: Path) -> None:
    write_recipe(folder / 'd0.npz')
    convert(folder / 'd0.npz', classes=90).save(folder / 'ours.pth')
    network = effdet.create_model(
        'tf_efficientdet_d0', pretrained=False, pretrained_backbone=False, image_size=size
    ).eval()
    network.load_state_dict(convert(folder / 'd0.npz', classes=90, to='effdet').state_dict)
    detector = Detector(our_config(size), folder / 'ours.pth', device='cpu')
    matched = total = 0
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        found = detector([image])[0].pred_instances
        ours = found.bboxes.double(), found.scores.double(), found.labels
        boxes, scores, labels = reference_detections(network, image, size)
        # Our detector clips to the image and drops what lies outside it.
        high = torch.tensor(image.shape[1::-1] * 2)
        boxes = torch.minimum(boxes.clamp(min=0), high)
        is_inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        theirs = boxes[is_inside], scores[is_inside], labels[is_inside]
        matched += count_matched(ours, theirs)
        total += len(theirs[0])
    assert total > 20 * len(paths)
    assert matched >= MATCHED_SHARE * total, f'{matched} of {total}'


def sample_images(count: int) -> list[Path]:
    folder = support.shared_data('coco_val_mini') / 'images'
    return sorted(folder.rglob('*.jpg'))[:count]


def test_detections__small(tmp_path: Path) -> None:
    for number in range(2):
        image = support.recipe().image(number, 180 + 60 * number, 260)
        cv2.imwrite(str(tmp_path / f'{number}.png'), image)
    run(sorted(tmp_path.glob('*.png')), (192, 256), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_detections__20_images_of_coco(tmp_path: Path) -> None:
    run(sample_images(20), (512, 512), tmp_path)
