import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from effdet_plugin.errors import ConfigError
from effdet_plugin.task_modules import BatchMaxIoUAssigner
from support import random_boxes

SIZE = (64, 64)


def instances(count: int, seed: int = 0) -> InstanceData:
    return InstanceData(bboxes=random_boxes(count, SIZE, seed), labels=torch.arange(count) % 4)


@given(seed=st.integers(0, 2**31), counts=st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_assign__each_image_as_assign_batch(seed: int, counts: list[int]) -> None:
    assigner = BatchMaxIoUAssigner()
    priors = random_boxes(30, SIZE, seed)
    images = [instances(count, seed + i) for i, count in enumerate(counts)]
    boxes = torch.nn.utils.rnn.pad_sequence([x.bboxes for x in images], batch_first=True)
    valid = torch.arange(boxes.shape[1]) < torch.tensor(counts)[:, None]
    batch = assigner.assign_batch(priors, boxes, valid)
    for matched, image in zip(batch, images, strict=True):
        result = assigner.assign(InstanceData(priors=priors), image)
        assert torch.equal(result.gt_inds, matched + 1)
        assert result.num_gts == len(image)
        positive = matched >= 0
        assert torch.equal(result.labels[positive], image.labels[matched[positive]])
        assert (result.labels[~positive] == -1).all()
        assert (result.max_overlaps[~positive] == 0).all()


def test_assign__overlaps_are_those_of_the_taken_box() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5], [30.0, 30, 40, 40]])
    truth = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([3]))
    result = BatchMaxIoUAssigner().assign(InstanceData(priors=priors), truth)
    assert result.max_overlaps.tolist() == [1.0, 0.5, 0.0]
    assert result.labels.tolist() == [3, 3, -1]


def test_assign__a_box_needs_the_threshold_unless_forced() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10]])
    truth = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 4]]), labels=torch.tensor([0]))
    for force, expected in ((True, [1]), (False, [0])):
        assigner = BatchMaxIoUAssigner(match_low_quality=force)
        assert assigner.assign(InstanceData(priors=priors), truth).gt_inds.tolist() == expected


def test_assign__takes_what_atss_and_gfl_pass() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 20, 20], [30.0, 30, 40, 40]])
    truth = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 9], [36.0, 36, 39, 39]]), labels=torch.tensor([3, 1])
    )
    assigner, predicted = BatchMaxIoUAssigner(), InstanceData(priors=priors)
    plain = assigner.assign(predicted, truth, None)
    assert plain.gt_inds.tolist() == [1, 0, 2]  # the second is forced
    # Its centre (35, 35) is outside: ATSS would take the root of a negative number.
    for result in (
        assigner.assign(predicted, [2, 1], truth, None),
        assigner.assign(pred_instances=predicted, num_level_priors=[2, 1], gt_instances=truth),
    ):
        assert result.gt_inds.tolist() == [1, 0, 0]
        assert result.labels.tolist() == [3, -1, -1]
    none = truth[truth.labels > 5]
    assert not assigner.assign(predicted, [2, 1], none, None).gt_inds.any()


@pytest.mark.parametrize(
    'instances_of_head',
    [
        InstanceData(priors=torch.tensor([[4.0, 4, 8, 8], [12.0, 4, 8, 8]])),  # YOLOX, RTMDet
        InstanceData(priors=torch.tensor([[4.0, 4, 8]])),  # RepPoints
        InstanceData(bboxes=random_boxes(2, SIZE)),  # DETR
        InstanceData(priors=random_boxes(2, SIZE), responsible_flags=torch.ones(2)),  # YOLOv3
    ],
    ids=['strides', 'points', 'predictions', 'cells'],
)
def test_assign__refuses_what_are_no_boxes(instances_of_head: InstanceData) -> None:
    with pytest.raises(ConfigError, match='keep its own assigner'):
        BatchMaxIoUAssigner().assign(instances_of_head, instances(2))


def test_assign__result_refuses_heads_that_need_more() -> None:
    result = BatchMaxIoUAssigner().assign(InstanceData(priors=random_boxes(5, SIZE)), instances(2))
    assert result.get_extra_property('shadowed_labels') is None
    with pytest.raises(ConfigError, match="no 'pos_idx'"):  # YOLOF
        result.get_extra_property('pos_idx')
    with pytest.raises(ConfigError, match="no 'assign_metrics'"):  # TOOD
        _ = result.assign_metrics


@pytest.mark.parametrize('counts', [(3, 2), (3, 0), (0, 0)])
def test_retina_head__trains_with_our_parts(counts: tuple[int, int]) -> None:
    """Assigner, coder, anchors and losses of ours in a head of mmdet's."""
    head = MODELS.build(
        dict(
            type='mmdet.RetinaHead',
            num_classes=4,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='EfficientDetAnchorGenerator', strides=[8, 16], octave_base_scale=3.0
            ),
            bbox_coder=dict(type='EfficientDetBoxCoder'),
            loss_cls=dict(type='SigmoidFocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='HuberLoss'),
            train_cfg=ConfigDict(
                assigner=dict(type='BatchMaxIoUAssigner'),
                sampler=dict(type='PseudoSampler'),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
            test_cfg=ConfigDict(nms_pre=10, score_thr=0.0, max_per_img=5),
        )
    )
    feats = [torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)]
    metas = [{'img_shape': SIZE, 'pad_shape': SIZE, 'batch_input_shape': SIZE}] * 2
    truth = [instances(count, seed) for seed, count in enumerate(counts)]
    losses = head.loss_by_feat(*head(feats), truth, metas)
    total = torch.stack([x for levels in losses.values() for x in levels]).sum()
    assert torch.isfinite(total)
    assert (sum(losses['loss_bbox']) > 0) == (sum(counts) > 0)
    total.backward()
    assert all(p.grad is not None for p in head.parameters())
