"""Hard NMS by an operator that takes each class apart: what the loop keeps."""

import pytest
import torch
from torch import Tensor

from effdet_plugin.export.nms_operator import suppress_by_operator
from effdet_plugin.ops.nms import suppress


def candidates(number: int, classes: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Clusters of boxes, so that much is suppressed; scores with ties, descending."""
    made = torch.Generator().manual_seed(number)
    centre = torch.randint(0, 6, (batch, number, 2), generator=made) * 40.0
    centre += torch.rand(centre.shape, generator=made) * 12
    sides = torch.rand(centre.shape, generator=made) * 20 + 20
    boxes = torch.cat([centre - sides / 2, centre + sides / 2], -1)
    scores = (torch.rand(batch, number, generator=made) * 50).round() / 50
    labels = torch.randint(0, classes, (batch, number), generator=made)
    return boxes, scores.sort(descending=True, stable=True)[0], labels


@pytest.mark.parametrize('score_thr', [float('-inf'), 0.0, 0.3])
@pytest.mark.parametrize('class_wise', [True, False])
@pytest.mark.parametrize('number', [5, 60, 400])
def test_operator__keeps_what_the_loop_keeps(
    number: int, class_wise: bool, score_thr: float
) -> None:
    boxes, scores, labels = candidates(number, 3)
    scores[1, number // 2 :] = -1.0  # padding
    rule = dict(iou_thr=0.4, score_thr=score_thr, max_per_img=20, class_wise=class_wise)
    expected = suppress(boxes, scores, labels, 'hard', **rule)  # type: ignore[arg-type]
    keep, kept = suppress_by_operator(boxes, scores, labels, 3, **rule)  # type: ignore[arg-type]
    assert keep.shape == kept.shape == (2, 20)
    # On ties torch's top-k may take any; ONNX's takes the first.
    assert torch.equal(kept, expected[1])
    for row in range(2):
        assert sorted(boxes[row][keep[row][kept[row] > kept[row].min()]].tolist()) == sorted(
            boxes[row][expected[0][row][kept[row] > kept[row].min()]].tolist()
        )


def test_operator__nothing_above_the_threshold() -> None:
    boxes, scores, labels = candidates(30, 2)
    keep, kept = suppress_by_operator(boxes, scores * 0, labels, 2, 0.5, 0.1, 10, True)
    assert (keep == 0).all()
    assert (kept == -1).all()
