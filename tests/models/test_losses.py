"""The losses in mmdet's form: weights, divisors, reductions, compared with mmdet's own."""

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models import BoxIoULoss, HuberLoss, SigmoidFocalLoss, losses
from effdet_plugin.models.losses import check_channels, loss_normalizer
from support import random_boxes


def cases() -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Loss, prediction and target of five rows each."""
    labels = torch.tensor([0, 2, 3, 3, 1])  # 3 is the background
    return [
        (SigmoidFocalLoss(True), torch.randn(5, 3), labels),
        (HuberLoss(), torch.randn(5, 4), torch.randn(5, 4)),
        (BoxIoULoss(), random_boxes(5, (50, 50)), random_boxes(5, (50, 50), 1)),
    ]


@pytest.mark.parametrize('case', range(3))
def test_reductions(case: int) -> None:
    loss, pred, target = cases()[case]
    each = loss(pred, target, reduction_override='none')
    torch.testing.assert_close(loss(pred, target, reduction_override='sum'), each.sum())
    torch.testing.assert_close(loss(pred, target), each.mean())
    torch.testing.assert_close(loss(pred, target, avg_factor=7.0), each.sum() / 7)
    divisor = torch.tensor(7.0)
    torch.testing.assert_close(loss(pred, target, avg_factor=divisor), each.sum() / 7)


@pytest.mark.parametrize('case', range(3))
def test_arguments_of_another_loss__are_one_line(case: int) -> None:
    """mmdet's CenterNetUpdateHead passes places and labels."""
    loss, pred, target = cases()[case]
    with pytest.raises(ConfigError, match=r'takes no pos_inds, pos_labels.*keep its own'):
        loss(pred, target, pos_inds=torch.zeros(1), pos_labels=torch.zeros(1), avg_factor=1.0)


@pytest.mark.parametrize('case', range(3))
def test_weight__of_rows_and_of_the_whole(case: int) -> None:
    loss, pred, target = cases()[case]
    each = loss(pred, target, reduction_override='none')
    rows = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0])
    weight = rows[:, None].expand_as(each) if each.dim() > 1 else rows
    expected = (each * weight).sum() / 7
    torch.testing.assert_close(loss(pred, target, weight, avg_factor=7.0), expected)
    columns = weight if weight.dim() > 1 else weight[:, None].expand(-1, pred.shape[1])
    torch.testing.assert_close(loss(pred, target, columns, avg_factor=7.0), expected)
    loss.loss_weight = 3.0  # type: ignore[assignment]
    torch.testing.assert_close(loss(pred, target, weight, avg_factor=7.0), 3 * expected)


def test_weight__of_four_rows_of_four_values() -> None:
    pred, target, rows = torch.randn(4, 4), torch.randn(4, 4), torch.tensor([1.0, 0.0, 2.0, 0.0])
    each = HuberLoss(reduction='none')(pred, target)
    torch.testing.assert_close(HuberLoss()(pred, target, rows), (each * rows[:, None]).mean())


def test_weight__of_single_elements_is_refused_where_rows_are_summed() -> None:
    loss, pred, target = cases()[0]
    with pytest.raises(ConfigError, match='5 rows, but this head weights 15 single elements'):
        loss(pred, target, torch.ones(15))


def test_focal__mmdets_head_has_no_channel_for_background() -> None:
    settings: dict[str, Any] = dict(type='mmdet.RetinaHead', num_classes=80, in_channels=8)
    head = MODELS.build(dict(**settings, loss_cls=dict(type='SigmoidFocalLoss', use_sigmoid=True)))
    assert head.cls_out_channels == 80
    with pytest.raises(ConfigError, match=r'use_sigmoid is missing; write use_sigmoid=True'):
        MODELS.build(dict(**settings, loss_cls=dict(type='SigmoidFocalLoss')))


@pytest.mark.parametrize(
    ('pred', 'target'),
    [
        (torch.zeros(5, 3), torch.rand(5, 3)),  # YOLOX
        (torch.zeros(5, 3), (torch.zeros(5).long(), torch.rand(5))),  # GFL, RTMDet
        (torch.zeros(2, 3, 4, 4), torch.rand(2, 3, 4, 4)),  # CenterNet
        (torch.zeros(5, 3), torch.rand(5)),
    ],
    ids=['soft', 'quality', 'heat map', 'floats'],
)
def test_focal__other_targets_are_refused(pred: Tensor, target: Any) -> None:
    with pytest.raises(ConfigError, match=r'takes logits \(N, C\) and labels \(N,\)'):
        SigmoidFocalLoss(True)(pred, target)


def test_focal__roi_head_scores_by_sigmoid() -> None:
    settings: dict[str, Any] = dict(
        num_classes=3, in_channels=4, roi_feat_size=1, with_avg_pool=True,
        loss_cls=dict(type='SigmoidFocalLoss', use_sigmoid=True),
    )  # fmt: skip
    head = MODELS.build(dict(type='mmdet.BBoxHead', **settings))
    assert head.fc_cls.out_features == 3
    logits = torch.tensor([[0.0, 5.0, -5.0], [0.0, 1.0, 2.0]])
    scores = head.loss_cls.get_activation(logits)
    torch.testing.assert_close(scores[:, :3], logits.sigmoid())
    assert not scores[:, 3].any()  # background's
    assert head.loss_cls.get_accuracy(logits, torch.tensor([1, 3]))['acc'] == 100


def test_focal__roi_head_that_has_a_channel_for_background() -> None:
    loss = SigmoidFocalLoss(True)
    loss.get_cls_channels(3)  # DoubleConvFCBBoxHead asks, but has its own layer
    with pytest.raises(ConfigError, match='4 channels for 3 classes in this head'):
        loss(torch.zeros(5, 4), torch.zeros(5).long())


def test_box_iou__deltas_are_refused_until_boxes_were_seen() -> None:
    boxes, deltas = random_boxes(100, (50, 50)), torch.tensor([[0.2, 0.1, -0.3, 0.4]])
    background = torch.zeros(50, 4)
    loss = BoxIoULoss()
    loss(background, background)  # a batch without objects tells nothing
    with pytest.raises(ConfigError, match='but deltas; set reg_decoded_bbox=True'):
        loss(deltas, deltas)
    loss = BoxIoULoss()
    loss(boxes, boxes)
    assert loss.unchecked_rows <= 0


def test_focal__rows_without_weight_have_no_gradient() -> None:
    loss, pred, target = cases()[0]
    pred.requires_grad_()
    loss(pred, target, torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0]), avg_factor=1.0).backward()
    assert pred.grad is not None
    assert not pred.grad[1].any()
    assert pred.grad[[0, 2, 3, 4]].all()


def test_focal__equals_mmdets_without_smoothing() -> None:
    _, pred, target = cases()[0]
    settings: dict[str, Any] = dict(use_sigmoid=True, gamma=2.0, alpha=0.25)
    theirs = MODELS.build(dict(type='mmdet.FocalLoss', **settings))
    own = MODELS.build(dict(type='SigmoidFocalLoss', **settings))
    torch.testing.assert_close(
        own(pred, target, avg_factor=2.0), theirs(pred, target, avg_factor=2.0)
    )


def test_huber__is_mmdets_smooth_l1_times_delta() -> None:
    loss, pred, target = cases()[1]
    theirs = MODELS.build(dict(type='mmdet.SmoothL1Loss', beta=0.1))
    torch.testing.assert_close(loss(pred, target), 0.1 * theirs(pred, target))


@pytest.mark.parametrize('mode', ['giou', 'diou'])  # its CIoU drops the angle of low IoUs
def test_box_iou__equals_mmdets_but_for_their_epsilon(mode: str) -> None:
    _, pred, target = cases()[2]
    theirs = MODELS.build(dict(type=f'mmdet.{mode[0].upper()}IoULoss'))
    torch.testing.assert_close(
        BoxIoULoss(mode)(pred, target), theirs(pred, target), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('case', range(3))
def test_precision__low_is_computed_in_float32(case: int) -> None:
    loss, pred, target = cases()[case]
    found = loss(pred.bfloat16(), target)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(pred.bfloat16().float(), target))


@pytest.mark.parametrize('case', range(3))
def test_no_rows__cost_nothing_and_have_a_graph(case: int) -> None:
    loss, pred, target = cases()[case]
    none = pred[:0].requires_grad_()
    total = loss(none, target[:0], avg_factor=1.0)
    assert total == 0
    total.backward()


@pytest.mark.parametrize(
    ('build', 'words'),
    [
        (lambda: SigmoidFocalLoss(False), 'use_sigmoid False is not supported'),
        (SigmoidFocalLoss, 'use_sigmoid is missing; write use_sigmoid=True'),
        (lambda: BoxIoULoss('siou'), "mode='siou'"),
        (lambda: BoxIoULoss('ciou', angle_gradient='none'), "angle_gradient='none'"),
    ],
)
def test_constructors__refuse(build: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build()


@pytest.mark.parametrize(
    ('kind', 'expected'), [('local', 6), ('mean', 6), ('global', 6), ('constant', 100)]
)
def test_normalizer__one_process(kind: str, expected: float) -> None:
    positives = torch.tensor(5.0)
    assert loss_normalizer(kind, positives).item() == expected
    assert positives.item() == 5


@pytest.mark.parametrize(
    ('kind', 'expected'), [('local', 6), ('mean', 5), ('global', 4.25), ('constant', 3)]
)
def test_normalizer__four_processes(
    kind: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, 'get_world_size', lambda: 4)
    monkeypatch.setattr(losses, 'all_reduce', lambda x: x.fill_(16))  # of 16 in all
    assert loss_normalizer(kind, torch.tensor(5.0), value=3.0).item() == expected


def test_normalizer__unknown() -> None:
    with pytest.raises(ConfigError, match=r"loss_normalizer='sum'.*local, mean, global, constant"):
        loss_normalizer('sum', torch.tensor(1.0))


@pytest.mark.parametrize('is_ours', [True, False])
def test_check_channels__a_roi_head_with_a_channel_for_background(is_ours: bool) -> None:
    """SABL's makes C + 1 channels without asking the loss, and reads them by softmax."""
    focal = dict(type='SigmoidFocalLoss', use_sigmoid=True)
    own = dict(type='CrossEntropyLoss', use_sigmoid=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        sabl = MODELS.build(
            dict(type='SABLHead', num_classes=3, loss_cls=focal if is_ours else own)
        )
        shared = MODELS.build(dict(type='Shared2FCBBoxHead', num_classes=3, loss_cls=focal))
    check_channels(nn.ModuleDict(dict(shared=shared)))
    if not is_ours:
        check_channels(nn.ModuleDict(dict(head=sabl)))
        return
    with pytest.raises(ConfigError, match=r'head: .*SABLHead has 4 channels for 3 classes'):
        check_channels(nn.ModuleDict(dict(head=sabl)))


def test_check_channels__paa_compares_losses_of_single_anchors() -> None:
    """It sums what it takes for the losses of an anchor's classes."""
    anchors = dict(
        type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8]
    )
    settings: dict[str, Any] = dict(num_classes=3, in_channels=8, anchor_generator=anchors)
    own = dict(type='FocalLoss', use_sigmoid=True)
    with DefaultScope.overwrite_default_scope('mmdet'):
        for loss in (own, dict(type='SigmoidFocalLoss', use_sigmoid=True)):
            head = MODELS.build(dict(type='PAAHead', loss_cls=loss, **settings))
            if loss is own:
                check_channels(nn.ModuleDict(dict(head=head)))
    with pytest.raises(ConfigError, match=r'^head: SigmoidFocalLoss: PAAHead sums .* keep its own'):
        check_channels(nn.ModuleDict(dict(head=head)))


@pytest.mark.parametrize(
    ('kind', 'settings', 'gives_boxes'),
    [
        ('FCOSHead', {}, True),
        ('ATSSHead', dict(anchor_generator=dict(type='AnchorGenerator', ratios=[1.0],
                          octave_base_scale=8, scales_per_octave=1, strides=[8])), True),
        ('RetinaHead', dict(reg_decoded_bbox=True), True),
        ('RetinaHead', {}, False),
    ],
)  # fmt: skip
def test_check_channels__huber_loss_of_boxes(
    kind: str, settings: dict[str, Any], gives_boxes: bool
) -> None:
    loss = dict(type='HuberLoss', loss_weight=1.0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = MODELS.build(
            dict(type=kind, num_classes=3, in_channels=8, loss_bbox=loss, **settings)
        )
    model = nn.ModuleDict(dict(bbox_head=head))
    if not gives_boxes:
        check_channels(model)
        return
    with pytest.raises(ConfigError, match=f'bbox_head: HuberLoss: {kind} passes boxes'):
        check_channels(model)
