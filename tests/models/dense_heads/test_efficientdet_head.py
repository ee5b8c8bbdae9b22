from typing import Any

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from effdet_plugin.errors import ConfigError
from effdet_plugin.models import EfficientDetHead
from support import random_boxes

SIZE = (64, 96)
STRIDES = [8, 16]
CELLS = [(8, 12), (4, 6)]
NUM_CLASSES = 3
METAS = [{'batch_input_shape': SIZE}]
ANCHORS: dict[str, Any] = dict(
    type='EfficientDetAnchorGenerator', strides=STRIDES, octave_base_scale=2.0
)


def build(**settings: Any) -> EfficientDetHead:
    settings = {'anchor_generator': ANCHORS, 'num_levels': 2, 'stacked_convs': 1, **settings}
    return EfficientDetHead(NUM_CLASSES, in_channels=8, **settings)


def outputs(batch: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Level outputs as the head gives them, leaves of the graph."""
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(batch, 9 * NUM_CLASSES, *c, generator=generator) - 3 for c in CELLS]
    deltas = [0.3 * torch.randn(batch, 36, *c, generator=generator) for c in CELLS]
    return [x.requires_grad_() for x in logits], [x.requires_grad_() for x in deltas]


def truth(*counts: int, seed: int = 0) -> list[InstanceData]:
    return [
        InstanceData(
            bboxes=random_boxes(count, SIZE, seed + image),
            labels=torch.arange(count) % NUM_CLASSES,
        )
        for image, count in enumerate(counts)
    ]


def losses(
    instances: list[InstanceData], head: EfficientDetHead | None = None
) -> dict[str, Tensor]:
    batch = len(instances)
    return (head or build()).loss_by_feat(*outputs(batch), instances, METAS * batch)


def values(found: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in found.items()}


def test_forward__channels_of_each_level() -> None:
    logits, deltas = build()([torch.randn(2, 8, *cells) for cells in CELLS])
    assert [tuple(x.shape) for x in logits] == [(2, 27, *cells) for cells in CELLS]
    assert [tuple(x.shape) for x in deltas] == [(2, 36, *cells) for cells in CELLS]


def test_forward__starts_with_the_focal_papers_prior() -> None:
    logits, _ = build().eval()([torch.zeros(1, 8, *cells) for cells in CELLS])
    assert logits[0].mean().sigmoid().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize('number', [1, 3])
def test_forward__refuses_another_number_of_maps(number: int) -> None:
    with pytest.raises(ConfigError, match=f'num_levels=2.* {number} maps'):
        build()([torch.zeros(1, 8, 4, 6)] * number)


def test_anchors__refuse_maps_of_another_level() -> None:
    maps = [torch.zeros(1, 1, *cells) for cells in CELLS]
    head = build()
    assert [len(x) for x in head.anchors(maps, (60, 90))] == [8 * 12 * 9, 4 * 6 * 9]  # rounded up
    with pytest.raises(ConfigError, match='strides starts at 8, but the finest map has stride 4:'):
        head.anchors(maps, (32, 48))


def test_norm_momentum__reaches_every_bn_of_both_towers() -> None:
    def momenta(head: EfficientDetHead) -> list[float | None]:
        return [m.momentum for m in head.modules() if isinstance(m, nn.BatchNorm2d)]

    assert momenta(build(norm_momentum=0.25)) == [0.25] * 4
    assert momenta(build()) == [0.01] * 4


def test_flatten__level_row_column_anchor() -> None:
    head = build()
    maps = [torch.zeros(1, 9 * 4, *cells) for cells in CELLS]
    maps[1][0, 7 * 4 + 2, 3, 5] = 1.0
    flat = head.flatten(maps, 4)
    anchor = 8 * 12 * 9 + (3 * 6 + 5) * 9 + 7
    assert flat.nonzero().tolist() == [[0, anchor, 2]]
    assert flat.shape[1] == len(torch.cat(head.anchors(maps, SIZE)))


def test_anchors__of_another_generator_too() -> None:
    head = build(
        anchor_generator=dict(
            type='AnchorGenerator', scales=[2], ratios=[1.0, 2.0, 0.5], strides=STRIDES
        )
    )
    assert head.num_anchors == 3
    anchors = head.anchors(outputs(1)[0], SIZE)
    assert [len(x) for x in anchors] == [8 * 12 * 3, 4 * 6 * 3]


@pytest.mark.parametrize('counts', [(0, 0), (0,), (2, 0), (0, 3)])
def test_loss__images_without_boxes(counts: tuple[int, ...]) -> None:
    logits, deltas = outputs(len(counts))
    found = build().loss_by_feat(logits, deltas, truth(*counts), METAS * len(counts))
    torch.stack(list(found.values())).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in logits + deltas if x.grad is not None)
    assert (found['loss_bbox'].item() == 0) == (sum(counts) == 0)
    assert found['loss_cls'].item() > 0


def test_loss__padding_of_other_images_changes_nothing() -> None:
    alone, beside = values(losses(truth(2))), values(losses(truth(2, 7)))
    head = build(loss_normalizer='constant')
    logits, deltas = outputs(2)
    instances = truth(2, 7)
    both = head.loss_by_feat(logits, deltas, instances, METAS * 2)
    each = [
        head.loss_by_feat(
            [x[i : i + 1] for x in logits], [x[i : i + 1] for x in deltas], [instances[i]], METAS
        )
        for i in range(2)
    ]
    for name, value in both.items():
        torch.testing.assert_close(value, each[0][name] + each[1][name])
    assert alone != beside


def test_loss__boxes_without_area_are_left_out() -> None:
    (plain,) = truth(2)
    flat = torch.tensor([[3.0, 3, 3, 30], [9.0, 9, 5, 20]])
    padded = InstanceData(
        bboxes=torch.cat([flat, plain.bboxes]),
        labels=torch.cat([torch.tensor([1, 2]), plain.labels]),
    )
    assert values(losses([padded])) == values(losses([plain]))


def test_loss__takes_mmdets_box_type() -> None:
    (plain,) = truth(2)
    boxes = InstanceData(bboxes=HorizontalBoxes(plain.bboxes), labels=plain.labels)
    assert values(losses([boxes])) == values(losses([plain]))


def test_loss__low_precision_outputs_are_computed_in_float32() -> None:
    logits, deltas = ([x.detach().bfloat16() for x in maps] for maps in outputs(2))
    wide_logits, wide_deltas = ([x.float() for x in maps] for maps in (logits, deltas))
    found = build().loss_by_feat(logits, deltas, truth(2, 1), METAS * 2)
    assert all(value.dtype == torch.float32 for value in found.values())
    expected = build().loss_by_feat(wide_logits, wide_deltas, truth(2, 1), METAS * 2)
    assert values(found) == values(expected)


def test_normaliser__positives_of_the_batch_plus_one() -> None:
    instances = truth(3, 1)
    head = build()
    anchors = torch.cat(head.anchors(outputs(2)[0], SIZE))
    positives = sum(
        int(
            (
                head.assigner.assign_batch(anchors, x.bboxes[None], torch.ones(1, len(x)) > 0) >= 0
            ).sum()
        )
        for x in instances
    )
    constant = build(loss_normalizer='constant', normalizer_value=1.0)
    sums, found = losses(instances, constant), losses(instances, head)
    for name, value in sums.items():
        torch.testing.assert_close(found[name], value / (positives + 1))


def test_box_loss__by_hand() -> None:
    """One box, one anchor, its deltas all wrong by 0.4: 4 times 0.035 * 50 / (4 * 2)."""
    head = build(assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=2.0))
    logits, deltas = outputs(1)
    box = torch.tensor([[17.0, 11, 43, 50]])
    anchors = torch.cat(head.anchors(logits, SIZE))
    matched = head.assigner.assign_batch(anchors, box[None], torch.ones(1, 1) > 0)[0]
    assert (matched >= 0).sum() == 1
    code = head.bbox_coder.encode(anchors[matched >= 0], box)[0]
    wrong = [torch.zeros_like(x) for x in deltas]
    for level in wrong:  # every anchor says the same
        level[:] = (code + 0.4).repeat(9).reshape(1, 36, 1, 1)
    instances = [InstanceData(bboxes=box, labels=torch.tensor([0]))]
    found = head.loss_by_feat(logits, wrong, instances, METAS)
    assert found['loss_bbox'].item() == pytest.approx(50 * 4 * 0.035 / (4 * 2), rel=1e-4)


@pytest.mark.parametrize('masked', [True, False])
def test_box_loss__exact_zeros_fall_out_as_in_the_reference(masked: bool) -> None:
    head = build(mask_zero_targets=masked)
    logits, deltas = outputs(1)
    anchor = torch.cat(head.anchors(logits, SIZE))[450:451]  # its codes are all 0
    only = build(
        mask_zero_targets=masked, assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=1.0)
    )
    instances = [InstanceData(bboxes=anchor, labels=torch.tensor([1]))]
    found = only.loss_by_feat(logits, deltas, instances, METAS)
    assert (found['loss_bbox'].item() == 0) == masked
    assert head.mask_zero_targets == masked


@pytest.mark.parametrize(
    'settings',
    [
        dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)),
        dict(loss_bbox=dict(type='SmoothL1Loss', beta=0.1)),
        dict(loss_iou=dict(type='GIoULoss')),
        dict(loss_iou=dict(type='BoxIoULoss', mode='ciou')),
    ],
)
def test_loss__mmdets_own_losses_serve_as_well(settings: dict[str, Any]) -> None:
    for counts in ((2, 3), (0, 0)):
        found = losses(truth(*counts), build(**settings))
        assert torch.isfinite(torch.stack(list(found.values()))).all()
        assert ('loss_iou' in found) == ('loss_iou' in settings)


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operators(batch: int, **settings: Any) -> list[str]:
    head, maps, instances = build(**settings), outputs(batch), truth(*range(1, batch + 1))
    head.loss_by_feat(*maps, instances, METAS * batch)  # makes the anchors
    with Operators() as found:
        losses = head.loss_by_feat(*maps, instances, METAS * batch)
        torch.stack(list(losses.values())).sum().backward()
    return found.names


@pytest.mark.parametrize('settings', [{}, dict(loss_iou=dict(type='BoxIoULoss'))])
def test_loss__never_waits_for_the_device(settings: dict[str, Any]) -> None:
    waiting = ('_local_scalar_dense', 'nonzero', 'masked_select', 'unique', 'equal', 'is_nonzero')
    names = operators(3, **settings)
    assert not [name for name in names if name.split('.')[1].startswith(waiting)]


def test_loss__no_loop_over_images() -> None:
    views = ('select', 'slice', 'narrow')
    few, many = (
        [name for name in operators(batch) if name.split('.')[1] not in views] for batch in (2, 7)
    )
    # A copy of boxes and one of labels an image: their packing.
    assert len(many) - len(few) == 2 * (7 - 2)


def test_loss__saves_one_tensor_of_the_logits_size() -> None:
    logits, deltas = outputs(2)
    given = {x.untyped_storage().data_ptr() for x in logits + deltas}
    saved: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in given:
            saved[storage.data_ptr()] = storage.nbytes()
        return x

    head, instances = build(), truth(2, 3)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        head.loss_by_feat(logits, deltas, instances, METAS * 2)
    of_logits = sum(x.numel() for x in logits) * 4
    of_deltas = sum(x.numel() for x in deltas) * 4
    # The logits in one piece, labels; and of the box loss codes, targets, weights, losses.
    assert sum(saved.values()) <= of_logits + 6 * of_deltas


def predict(head: EfficientDetHead, batch: int = 2, **keywords: Any) -> list[InstanceData]:
    metas = keywords.pop('metas', METAS * batch)
    with torch.no_grad():
        return head.predict_by_feat(*outputs(batch), batch_img_metas=metas, **keywords)


def test_predict__best_first_and_a_batch_is_its_images() -> None:
    head = build()
    both = predict(head)
    for image, found in enumerate(both):
        logits, deltas = ([x[image : image + 1] for x in maps] for maps in outputs(2))
        (alone,) = head.predict_by_feat(logits, deltas, batch_img_metas=METAS)
        assert torch.equal(found.bboxes, alone.bboxes)
        assert (found.scores[:-1] >= found.scores[1:]).all()
        assert found.labels.min() >= 0
        assert found.labels.max() < NUM_CLASSES
        assert len(found) == 100


def test_predict__rescales_each_axis() -> None:
    metas = [{'batch_input_shape': SIZE, 'scale_factor': (2.0, 0.5)}]
    scaled, plain = (
        predict(build(), 1, metas=metas, rescale=rescale)[0].bboxes for rescale in (True, False)
    )
    torch.testing.assert_close(scaled * torch.tensor([2, 0.5, 2, 0.5]), plain)


@pytest.mark.parametrize('clip', ['before', 'after'])
def test_predict__clips_to_a_size_that_it_knows(clip: str) -> None:
    head = build(postprocessor=dict(type='DetectionPostProcessor', clip=clip))
    boxes = predict(head, 1)[0].bboxes
    assert boxes.min() == 0
    assert boxes[:, 2].max() == SIZE[1]
    with pytest.raises(ConfigError, match=f"clip='{clip}'.*batch_input_shape"):
        predict(head, 1, metas=[{}])
    assert len(predict(head, 1, metas=[{}], with_nms=False)[0]) > 0  # which clips nothing
    assert len(predict(build(), 1, metas=[{}])[0]) > 0


def test_predict__nothing_found() -> None:
    processor = dict(type='DetectionPostProcessor', score_thr=0.9999)
    (found,) = predict(build(postprocessor=processor), 1)
    assert len(found) == 0
    assert found.bboxes.shape == (0, 4)


def test_predict__candidates_without_nms() -> None:
    processor = dict(type='DetectionPostProcessor', nms_pre=17)
    found = predict(build(postprocessor=processor), with_nms=False)
    assert [len(x) for x in found] == [17, 17]
    assert (found[0].scores[:-1] >= found[0].scores[1:]).all()
