import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.box_loss import IOU_MODES, huber_loss, iou_loss
from effdet_plugin.ops.boxes import pairwise_iou
from support import random_boxes

TORCHVISION = dict(
    giou=generalized_box_iou_loss, diou=distance_box_iou_loss, ciou=complete_box_iou_loss
)


@pytest.mark.parametrize(('error', 'loss'), [(0.0, 0.0), (0.1, 0.005), (-0.1, 0.005), (0.4, 0.035)])
def test_huber__by_hand(error: float, loss: float) -> None:
    found = huber_loss(torch.tensor([1 + error]), torch.tensor([1.0]), delta=0.1)
    assert found.item() == pytest.approx(loss, rel=1e-5, abs=1e-8)


def test_huber__is_smooth_l1_times_delta() -> None:
    x, y = torch.randn(50), torch.randn(50)
    smooth = torch.nn.functional.smooth_l1_loss(x, y, reduction='none', beta=0.1)
    torch.testing.assert_close(huber_loss(x, y), 0.1 * smooth)


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


@pytest.mark.parametrize('mode', IOU_MODES)
def test_forms__gradient_is_that_of_the_loss(mode: str) -> None:
    pred, target = pairs()
    pred.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: iou_loss(x, target, mode, 'reference'), pred)


@pytest.mark.parametrize('mode', IOU_MODES)
def test_forms__equal_boxes_cost_nothing(mode: str) -> None:
    boxes, _ = pairs()
    torch.testing.assert_close(iou_loss(boxes, boxes, mode), torch.zeros(20, dtype=boxes.dtype))


@pytest.mark.parametrize('mode', IOU_MODES)
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


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (('siou',), r"mode='siou'.*iou, giou, diou, ciou"),
        (('ciou', 'none'), r"angle_gradient='none'.*paper, reference"),
    ],
)
def test_iou_loss__refuses(settings: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        iou_loss(*pairs(), *settings)
