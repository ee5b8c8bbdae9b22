"""One fixed batch of two real images, as mmdet's data loader passes it to a detector."""

import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor

from support import REPOSITORY

IMAGES = REPOSITORY / 'tests' / 'data' / 'bccd_pair'
SIZE = (96, 128)  # (height, width): half the images' own

Batch = dict[str, list[Any]]


def masks_of(boxes: Tensor) -> BitmapMasks:
    """The boxes as masks."""
    masks = np.zeros((len(boxes), *SIZE), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return BitmapMasks(masks, *SIZE)


def sample_of(boxes: Tensor, labels: list[int], with_masks: bool) -> DetDataSample:
    meta = {'img_shape': SIZE, 'ori_shape': SIZE, 'scale_factor': (1.0, 1.0)}
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels))
    if with_masks:
        sample.gt_instances.masks = masks_of(boxes)
    return sample


@pytest.fixture
def batch() -> Callable[[bool], Batch]:
    """A function that makes a new batch each time: preprocessors change their input in place."""
    data = json.loads((IMAGES / 'annotations.json').read_text())

    def make(with_masks: bool = False) -> Batch:
        made: Batch = {'inputs': [], 'data_samples': []}
        for image in data['images']:
            pixels = cv2.resize(cv2.imread(str(IMAGES / image['file_name'])), SIZE[::-1])
            own = [a for a in data['annotations'] if a['image_id'] == image['id']]
            boxes = torch.tensor([a['bbox'] for a in own]) * SIZE[0] / image['height']
            boxes[:, 2:] += boxes[:, :2]
            made['inputs'].append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
            labels = [a['category_id'] - 1 for a in own]
            made['data_samples'].append(sample_of(boxes, labels, with_masks))
        return made

    return make
