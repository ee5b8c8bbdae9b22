import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes

from effdet_plugin.errors import ConfigError
from effdet_plugin.task_modules import EfficientDetBoxCoder
from support import random_boxes


@given(seed=st.integers(0, 2**31))
def test_coder__equals_mmdets_without_scales(seed: int) -> None:
    theirs = TASK_UTILS.build(
        dict(type='DeltaXYWHBBoxCoder', target_means=(0.0,) * 4, target_stds=(1.0,) * 4)
    )
    anchors, boxes = random_boxes(6, (90, 70), seed), random_boxes(6, (90, 70), seed + 1)
    own = EfficientDetBoxCoder()
    codes = own.encode(anchors, boxes)
    torch.testing.assert_close(codes, theirs.encode(anchors, boxes), rtol=1e-4, atol=1e-5)
    decoded = own.decode(anchors, codes, max_shape=(40, 50))
    expected = theirs.decode(anchors, codes, max_shape=(40, 50), wh_ratio_clip=1e-6)
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-3)


def test_decode__has_no_limit_of_size() -> None:
    anchor = torch.tensor([[0.0, 0, 10, 10]])
    box = EfficientDetBoxCoder().decode(anchor, torch.tensor([[0.0, 0, 6, 0]]))
    assert (box[0, 2] - box[0, 0]).item() > 4000  # mmdet's stops at 625


def test_coder__takes_mmdets_box_type() -> None:
    anchors, boxes = random_boxes(3, (50, 50)), random_boxes(3, (50, 50), 1)
    coder = EfficientDetBoxCoder()
    codes = coder.encode(HorizontalBoxes(anchors), HorizontalBoxes(boxes))
    assert torch.equal(codes, coder.encode(anchors, boxes))
    assert torch.equal(coder.decode(HorizontalBoxes(anchors), codes), coder.decode(anchors, codes))


def test_coder__refuses_heads_of_another_kind() -> None:
    boxes, coder = random_boxes(3, (50, 50)), EfficientDetBoxCoder()
    with pytest.raises(ConfigError, match='keep its own bbox_coder'):
        coder.encode(boxes, boxes, torch.tensor(8))  # YOLOv3 passes strides
    for points, deltas in ((boxes[:, :2], boxes), (boxes, boxes.repeat(1, 2))):
        with pytest.raises(ConfigError, match='keep its own bbox_coder'):
            coder.decode(points, deltas)
