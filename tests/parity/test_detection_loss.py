"""The whole detection loss of a batch and its gradients, from level outputs through the head."""

from typing import Any

import pytest
import torch
from ladder import difference, nchw, nhwc, swap, swap_channels, worst
from mmengine.structures import InstanceData
from torch import Tensor

import support
from effdet_plugin.models import EfficientDetHead

ARRAYS = support.load_oracle('losses')
LIMIT = 1e-6
GRADIENT_LIMIT = 1e-5
NUM_CLASSES = 6
BOX_WEIGHT = 50.0

CASES: dict[str, dict[str, Any]] = {
    'default': {},
    'smooth': dict(loss_cls=dict(type='SigmoidFocalLoss', use_sigmoid=True, label_smoothing=0.1)),
    'ciou': dict(loss_iou=dict(type='BoxIoULoss', mode='ciou', angle_gradient='reference')),
    # The GIoU loss with weight 2 instead of the box loss.
    'giou_w': dict(
        loss_bbox=dict(type='HuberLoss', loss_weight=0.0),
        loss_iou=dict(type='BoxIoULoss', mode='giou', loss_weight=2.0),
    ),
}


def outputs(size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
    """Level outputs, leaves of the graph."""
    make = support.recipe().normalish
    logits, codes = [], []
    for level in range(3, 8):
        cells = (size[0] >> level, size[1] >> level)
        logits.append(nchw(make(f'dl:class{level}', (2, *cells, 9 * NUM_CLASSES), 1.2, -3)))
        codes.append(swap_channels(nchw(make(f'dl:box{level}', (2, *cells, 36), 0.4))))
    return [x.requires_grad_() for x in logits], [x.requires_grad_() for x in codes]


def truth() -> list[InstanceData]:
    return [
        InstanceData(
            bboxes=swap(torch.from_numpy(ARRAYS[f'det_gt{image}'])),
            labels=torch.from_numpy(ARRAYS[f'det_cls{image}']).long() - 1,
        )
        for image in range(2)
    ]


@pytest.mark.parametrize('case', CASES)
def test_loss__sums_and_gradients(case: str) -> None:
    height, width = ARRAYS['det_size_hw'].tolist()
    head = EfficientDetHead(NUM_CLASSES, 8, **CASES[case])
    logits, codes = outputs((height, width))
    metas = [{'batch_input_shape': (height, width)}] * 2
    losses = head.loss_by_feat(logits, codes, truth(), metas)
    total = torch.stack(list(losses.values())).sum()
    gradients = torch.autograd.grad(total, logits + codes)

    def check(name: str, value: Tensor, limit: float) -> None:
        assert difference(ARRAYS, f'det_{case}_{name}', value) < limit, name

    check('det_loss', total, LIMIT)
    check('cls_loss', losses['loss_cls'], LIMIT)
    if 'loss_bbox' in losses:
        check('box_loss', losses['loss_bbox'] / BOX_WEIGHT, LIMIT)
    else:
        assert ARRAYS[f'det_{case}_box_loss'] == 0
    if head.loss_iou is not None:
        check('box_iou_loss', losses['loss_iou'] / head.loss_iou.loss_weight, LIMIT)
    own = {f'dclass{level}': x for level, x in enumerate(gradients[:5], start=3)}
    own.update({f'dbox{level}': swap_channels(x) for level, x in enumerate(gradients[5:], start=3)})
    found = worst([(n, difference(ARRAYS, f'det_{case}_{n}', nhwc(x))) for n, x in own.items()])
    assert found[1] < GRADIENT_LIMIT, found


def test_assigner__counts_of_the_same_batch() -> None:
    height, width = ARRAYS['det_size_hw'].tolist()
    head = EfficientDetHead(NUM_CLASSES, 8)
    anchors = torch.cat(head.anchors(outputs((height, width))[0], (height, width)))
    for count, instances in zip(ARRAYS['det_num_positives'], truth(), strict=True):
        valid = torch.ones(1, len(instances), dtype=torch.bool)
        matched = head.assigner.assign_batch(anchors, instances.bboxes[None], valid)
        assert (matched >= 0).sum() == count
