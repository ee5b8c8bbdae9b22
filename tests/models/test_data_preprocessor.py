from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from torch import Tensor

from effdet_plugin.models import EfficientDetDataPreprocessor

MEAN, STD = [10.0, 20.0, 30.0], [2.0, 4.0, 5.0]


def sample(height: int, width: int) -> DetDataSample:
    return DetDataSample(metainfo={'img_shape': (height, width)})


def run(inputs: Any, samples: Any = None, **settings: Any) -> tuple[Tensor, Any]:
    processor = EfficientDetDataPreprocessor(MEAN, STD, **settings)
    data = processor({'inputs': inputs, 'data_samples': samples})
    return data['inputs'], data['data_samples']


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
@pytest.mark.parametrize('pad_value', [0.0, -1.0])
def test_padding__is_exact_after_normalisation(dtype: torch.dtype, pad_value: float) -> None:
    images = torch.randint(0, 256, (2, 3, 6, 8)).to(dtype)
    found, samples = run(images, [sample(6, 8), sample(4, 5)], pad_value=pad_value)
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (MEAN, STD))
    expected = (images.float() - mean) / std
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1, :, :4, :5], expected[1, :, :4, :5])
    assert (found[1, :, 4:] == pad_value).all()
    assert (found[1, :, :, 5:] == pad_value).all()
    assert [s.batch_input_shape for s in samples] == [(6, 8), (6, 8)]


def test_images_of_several_sizes__padded_to_the_largest() -> None:
    images = [torch.full((3, *size), 100, dtype=torch.uint8) for size in ((4, 7), (6, 5))]
    found, _ = run(images, [sample(4, 7), sample(6, 5)])
    assert found.shape == (2, 3, 6, 7)
    assert (found[0, :, :4] != 0).all()
    assert not found[0, :, 4:].any()
    assert not found[1, :, :, 5:].any()


def test_without_samples__the_whole_picture_is_valid() -> None:
    found, samples = run(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    assert samples is None
    assert torch.equal(found[0, :, 0, 0], torch.tensor([-5.0, -5.0, -6.0]))


def test_boxes__come_as_tensors_which_most_heads_want() -> None:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    one = sample(2, 2)
    one.gt_instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.tensor([0]))
    _, (found,) = run(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), [one])
    assert type(found.gt_instances.bboxes) is Tensor
    assert torch.equal(found.gt_instances.bboxes, boxes)
