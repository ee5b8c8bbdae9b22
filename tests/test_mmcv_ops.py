"""The stand-ins for compiled mmcv operators, against plain forms of the same rules."""

import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from effdet_plugin import compat, mmcv_ops
from effdet_plugin.errors import InstallError
from support import random_boxes

seeds = st.integers(0, 10_000)
roi_settings = {'aligned_height': 3, 'aligned_width': 2, 'spatial_scale': 0.5, 'pool_mode': 1}


def make_dets(number: int, seed: int) -> tuple[Tensor, Tensor]:
    scores = torch.rand(number, generator=torch.Generator().manual_seed(seed))
    return random_boxes(number, (40, 60), seed), scores


def plain_iou(a: Tensor, b: Tensor, offset: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    overlap = float(max(width, torch.tensor(0.0)) * max(height, torch.tensor(0.0)))
    areas = [float((x[2] - x[0] + offset) * (x[3] - x[1] + offset)) for x in (a, b)]
    return overlap / (sum(areas) - overlap)


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    keep: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if all(plain_iou(boxes[index], boxes[k], offset) <= threshold for k in keep):
            keep.append(index)
    return keep


@given(seed=seeds, number=st.integers(0, 20), threshold=st.sampled_from([0.1, 0.5]))
@pytest.mark.parametrize('offset', [0, 1])
def test_nms__is_the_plain_rule(seed: int, number: int, threshold: float, offset: int) -> None:
    boxes, scores = make_dets(number, seed)
    kept = mmcv_ops.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    assert kept.dtype == torch.int64
    assert kept.tolist() == plain_nms(boxes, scores, threshold, offset)


def test_nms__ties_keep_the_first_and_empty_boxes_stay() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 1, 1], [1, 1, 1, 1]])
    kept = mmcv_ops.nms(boxes, torch.tensor([0.5, 0.5, 0.4, 0.3]), iou_threshold=0.5, offset=0)
    assert kept.tolist() == [0, 2, 3]


def plain_softnms(
    boxes: Tensor, scores: Tensor, decay: Callable[[float], float], min_score: float
) -> list[tuple[int, float]]:
    left, kept = dict(enumerate(scores.tolist())), []
    while left:
        best = max(left, key=lambda index: left[index])
        kept.append((best, left.pop(best)))
        for index in list(left):
            left[index] *= decay(plain_iou(boxes[best], boxes[index], 0))
            if left[index] < min_score:
                del left[index]
    return kept


DECAYS = {
    0: lambda iou: 0.0 if iou >= 0.3 else 1.0,
    1: lambda iou: 1 - iou if iou >= 0.3 else 1.0,
    2: lambda iou: float(torch.exp(torch.tensor(-(iou**2) / 0.5))),
}


@given(seed=seeds, number=st.integers(0, 12))
@pytest.mark.parametrize('method', [0, 1, 2])
def test_softnms__is_the_plain_rule(seed: int, number: int, method: int) -> None:
    boxes, scores = make_dets(number, seed)
    dets = torch.empty(number, 5)
    kept = mmcv_ops.softnms(
        boxes, scores, dets, iou_threshold=0.3, sigma=0.5, min_score=0.05, method=method, offset=0
    )
    expected = plain_softnms(boxes, scores, DECAYS[method], 0.05)
    assert kept.tolist() == [index for index, _ in expected]
    filled = dets[: len(kept)]
    torch.testing.assert_close(filled[:, :4], boxes[kept])
    torch.testing.assert_close(filled[:, 4], torch.tensor([score for _, score in expected]))


def run_roi_align(features: Tensor, rois: Tensor, ratio: int, aligned: bool = True) -> Tensor:
    output = features.new_full((len(rois), features.shape[1], 3, 2), float('nan'))
    empty = features.new_zeros(0)
    mmcv_ops.roi_align_forward(
        features, rois, output, empty, empty, sampling_ratio=ratio, aligned=aligned, **roi_settings
    )
    return output


def make_rois(number: int, images: int) -> Tensor:
    indices = torch.arange(number).remainder(images)
    return torch.cat([indices[:, None].float(), random_boxes(number, (20, 28))], dim=1)


def plain_sample(plane: Tensor, y: float, x: float) -> Tensor:
    """Bilinear value of (C, H, W) as mmcv has it: 0 beyond a pixel outside, else the edge."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(plane.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = plane[:, top, left] * (1 - x + left) + plane[:, top, right] * (x - left)
    below = plane[:, bottom, left] * (1 - x + left) + plane[:, bottom, right] * (x - left)
    return above * (1 - y + top) + below * (y - top)


def plain_roi_align(plane: Tensor, box: list[float], ratio: int, aligned: bool) -> Tensor:
    x1, y1, x2, y2 = (side * 0.5 - (0.5 if aligned else 0) for side in box)
    height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
    steps_y, steps_x = ratio or math.ceil(height / 3), ratio or math.ceil(width / 2)
    output = plane.new_zeros(plane.shape[0], 3, 2)
    for row, column, i, j in itertools.product(range(3), range(2), range(steps_y), range(steps_x)):
        y = y1 + height / 3 * (row + (i + 0.5) / steps_y)
        x = x1 + width / 2 * (column + (j + 0.5) / steps_x)
        output[:, row, column] += plain_sample(plane, y, x) / (steps_y * steps_x)
    return output


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [2, 0])
def test_roi_align__is_the_plain_rule(ratio: int, aligned: bool) -> None:
    features, rois = torch.randn(2, 3, 12, 16), make_rois(9, images=2)
    rois[5:, 1:] += torch.tensor([14.0, -9, 14, -9])  # beyond the edges
    got = run_roi_align(features, rois, ratio, aligned)
    for roi, found in zip(rois, got, strict=True):
        expected = plain_roi_align(features[int(roi[0])], roi[1:].tolist(), ratio, aligned)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_roi_align__samples_outside_count_as_zero() -> None:
    features = torch.ones(1, 1, 4, 4)
    rois = torch.tensor([[0.0, -16, 0, 0, 6], [0, 0, 0, 6, 6], [0, 100, 100, 120, 120]])
    got = run_roi_align(features, rois, ratio=2)
    assert got[0, 0, :, 0].tolist() == [0, 0, 0]
    torch.testing.assert_close(got[1], torch.ones(1, 3, 2))
    assert not got[2].any()


@pytest.mark.parametrize('number', [0, 1, 70])
def test_roi_align__backward_is_the_adjoint(number: int) -> None:
    features, rois = torch.randn(2, 3, 12, 16), make_rois(number, images=2)
    forward = run_roi_align(features, rois, ratio=2)
    gradient, into = torch.randn_like(forward), torch.zeros_like(features)
    empty = features.new_zeros(0)
    mmcv_ops.roi_align_backward(
        gradient, rois, empty, empty, into, sampling_ratio=2, aligned=True, **roi_settings
    )
    torch.testing.assert_close((forward * gradient).sum(), (features * into).sum())


def test_roi_align__max_pooling_is_refused() -> None:
    with pytest.raises(NotImplementedError, match='max pooling'):
        mmcv_ops._roi_chunks(1, torch.zeros(1, 5), pool_mode=0)


def plain_focal(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    hot = torch.nn.functional.one_hot(target, logits.shape[1] + 1)[:, :-1].bool()
    p = logits.sigmoid()
    loss = torch.where(hot, -0.3 * (1 - p) ** 1.5 * p.log(), -0.7 * p**1.5 * (1 - p).log())
    return loss * torch.cat([weight, weight.new_ones(1)])[target][:, None]


@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss__value_and_gradient(weighted: bool) -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 4, 4])
    weight = torch.rand(4, dtype=torch.float64) if weighted else torch.ones(4, dtype=torch.float64)
    expected = plain_focal(logits, target, weight)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    given_weight = weight if weighted else weight.new_empty(0)
    output, into = torch.empty_like(logits), torch.empty_like(logits)
    args: dict[str, Any] = {'gamma': 1.5, 'alpha': 0.3}
    mmcv_ops.sigmoid_focal_loss_forward(logits.detach(), target, given_weight, output, **args)
    mmcv_ops.sigmoid_focal_loss_backward(logits.detach(), target, given_weight, into, **args)
    torch.testing.assert_close(output, expected.detach())
    torch.testing.assert_close(into, gradient)


def test_sigmoid_focal_loss__far_logits_stay_finite() -> None:
    logits, target = torch.tensor([[-200.0, 200.0]]), torch.tensor([0])
    output = torch.empty_like(logits)
    mmcv_ops.sigmoid_focal_loss_forward(
        logits, target, logits.new_empty(0), output, gamma=2.0, alpha=0.25
    )
    torch.testing.assert_close(output, torch.tensor([[50.0, 150.0]]))


def test_missing_op__says_what_to_install() -> None:
    op = mmcv_ops.missing_op('deform_conv_forward')
    with pytest.raises(InstallError, match=r'deform_conv_forward.*compiled mmcv'):
        op()
    with pytest.raises(AttributeError):
        mmcv_ops.missing_op('__path__')


@pytest.mark.skipif(not compat.mmcv_ext_is_stand_in(), reason='a compiled mmcv is installed')
def test_mmcv__calls_the_stand_ins() -> None:
    ops = importlib.import_module('mmcv.ops')
    boxes, scores = make_dets(30, seed=1)
    dets, kept = ops.nms(boxes, scores, iou_threshold=0.4)
    assert kept.tolist() == plain_nms(boxes, scores, 0.4, 0)
    torch.testing.assert_close(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])
    soft, _ = ops.soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=0.05)
    assert len(soft) >= len(kept)
    features = torch.randn(1, 2, 12, 16, requires_grad=True)
    ops.roi_align(features, make_rois(3, images=1), (3, 2), 0.5, 2).sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad.sum(), torch.tensor(3 * 2 * 6.0))
    logits = torch.randn(5, 4, requires_grad=True)
    ops.sigmoid_focal_loss(logits, torch.arange(5), 2.0, 0.25, None, 'sum').backward()
    assert logits.grad is not None


def test_collect_env__says_that_nothing_was_compiled() -> None:
    from mmcv.utils import collect_env

    if compat.mmcv_ext_is_stand_in():
        assert collect_env()['MMCV Compiler'] == 'n/a'
