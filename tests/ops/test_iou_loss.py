import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from effdet_plugin.ops.boxes import pairwise_iou
from effdet_plugin.ops.iou_loss import MODES, iou_loss
from support import random_boxes

TORCHVISION = dict(
    giou=generalized_box_iou_loss, diou=distance_box_iou_loss, ciou=complete_box_iou_loss
)


def pairs(seed: int = 0) -> tuple[Tensor, Tensor]:
    return (
        random_boxes(20, (80, 60), seed).double(),
        random_boxes(20, (80, 60), seed + 1).double(),
    )


@given(seed=st.integers(0, 2**31))
def test_iou__is_one_minus_the_iou(seed: int) -> None:
    pred, target = pairs(seed)
    torch.testing.assert_close(iou_loss(pred, target), 1 - pairwise_iou(pred, target).diagonal())


@pytest.mark.parametrize('mode', TORCHVISION)
def test_forms__equal_torchvisions(mode: str) -> None:
    pred, target = pairs()
    pred.requires_grad_()
    own, theirs = iou_loss(pred, target, mode), TORCHVISION[mode](pred, target)
    torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(x.sum(), pred)[0] for x in (own, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('mode', MODES)
def test_forms__gradient_is_that_of_the_loss(mode: str) -> None:
    pred, target = pairs()
    pred.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: iou_loss(x, target, mode, 'reference'), pred)


@pytest.mark.parametrize('mode', MODES)
def test_forms__equal_boxes_cost_nothing(mode: str) -> None:
    boxes, _ = pairs()
    torch.testing.assert_close(iou_loss(boxes, boxes, mode), torch.zeros(20, dtype=boxes.dtype))


@pytest.mark.parametrize('mode', MODES)
def test_forms__empty_and_inverted_boxes_are_finite(mode: str) -> None:
    pred = torch.tensor([[5.0, 5, 5, 5], [9.0, 9, 2, 2], [0.0, 0, 4, 4]], requires_grad=True)
    target = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4, 4], [3.0, 3, 3, 8]])
    loss = iou_loss(pred, target, mode)
    (gradient,) = torch.autograd.grad(loss.sum(), pred)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()
    assert loss[2] == 0  # a target without width costs nothing
    assert not gradient[2].any()


def test_ciou__weight_of_the_angle_is_held_only_in_the_papers_form() -> None:
    pred, target = pairs()
    pred.requires_grad_()
    paper, reference = (
        torch.autograd.grad(iou_loss(pred, target, 'ciou', form).sum(), pred)[0]
        for form in ('paper', 'reference')
    )
    assert not torch.allclose(paper, reference)


def test_iou_loss__unknown_mode() -> None:
    with pytest.raises(ValueError, match=r"mode='siou'.*iou, giou, diou, ciou"):
        iou_loss(*pairs(), 'siou')
