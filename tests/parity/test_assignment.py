"""Which anchor takes which box: equal to the last anchor, through the function and the assigner."""

import pytest
import torch
from ladder import swap
from mmengine.structures import InstanceData
from torch import Tensor

import support
from effdet_plugin.ops import anchor_boxes, encode_deltas
from effdet_plugin.task_modules import BatchMaxIoUAssigner

ARRAYS = support.load_oracle('assignment')
CASES = sorted(name.removesuffix('_classes') for name in ARRAYS if name.endswith('_classes'))


def anchors() -> Tensor:
    height, width = ARRAYS['size_hw'].tolist()
    return anchor_boxes((height, width))


def truth(case: str) -> tuple[Tensor, Tensor]:
    """Boxes ``(G, 4)`` and 0-based labels ``(G,)``."""
    boxes = swap(torch.from_numpy(ARRAYS[f'{case}_boxes']))
    return boxes, torch.from_numpy(ARRAYS[f'{case}_classes']).long() - 1


def check(case: str, matched: Tensor) -> None:
    """Compare box indices ``(N,)`` or -1 with the stored positives."""
    boxes, labels = truth(case)
    positive = matched.ge(0).nonzero().squeeze(1)
    assert positive.tolist() == ARRAYS[f'{case}_positive_anchor'].tolist()
    assert len(positive) == ARRAYS[f'{case}_num_positives']
    taken = matched[positive]
    assert labels[taken].tolist() == ARRAYS[f'{case}_positive_class0'].tolist()
    codes = encode_deltas(anchors()[positive], boxes[taken])
    expected = torch.from_numpy(ARRAYS[f'{case}_positive_box'])
    torch.testing.assert_close(swap(codes), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('case', CASES)
def test_assign__one_image_behind_mmdets_interface(case: str) -> None:
    boxes, labels = truth(case)
    result = BatchMaxIoUAssigner().assign(
        InstanceData(priors=anchors()), InstanceData(bboxes=boxes, labels=labels)
    )
    check(case, result.gt_inds - 1)


def test_assign_batch__all_cases_padded_together() -> None:
    counts = [len(truth(case)[0]) for case in CASES]
    boxes = torch.full((len(CASES), max(counts), 4), 7.0)  # padding that would match something
    for image, case in enumerate(CASES):
        boxes[image, : counts[image]] = truth(case)[0]
    valid = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    matched = BatchMaxIoUAssigner().assign_batch(anchors(), boxes, valid)
    for case, row in zip(CASES, matched, strict=True):
        check(case, row)
