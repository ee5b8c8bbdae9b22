from typing import Any

import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS

from effdet_plugin.ops import anchor_boxes, level_sizes
from effdet_plugin.task_modules import EfficientDetAnchorGenerator
from effdet_plugin.task_modules.anchor_generator import SETS_KEPT


def build(**settings: Any) -> EfficientDetAnchorGenerator:
    generator: EfficientDetAnchorGenerator = TASK_UTILS.build(
        dict(type='EfficientDetAnchorGenerator', **settings)
    )
    return generator


@pytest.mark.parametrize('size', [(512, 512), (277, 331), (320, 320)])
def test_grid_priors__with_the_image_size_are_the_references(size: tuple[int, int]) -> None:
    levels = build().grid_priors(level_sizes(size, 3, 7), image_size=size)
    assert torch.equal(torch.cat(levels), anchor_boxes(size))


def test_grid_priors__without_it_strides_are_whole() -> None:
    sizes = level_sizes((277, 331), 3, 7)
    levels = build().grid_priors(sizes)
    whole = build(stride_mode='power_of_two').grid_priors(sizes, image_size=(277, 331))
    assert torch.equal(torch.cat(levels), torch.cat(whole))
    step = levels[0].reshape(35, 42, 9, 4)
    torch.testing.assert_close(step[1:, :, :, 1], step[:-1, :, :, 1] + 8)


def test_grid_priors__made_once() -> None:
    generator = build()
    sizes = level_sizes((64, 64), 3, 7)
    first = generator.grid_priors(sizes, image_size=(64, 64))
    assert generator.grid_priors(sizes, image_size=(64, 64))[0] is first[0]
    assert generator.grid_priors(sizes, image_size=(64, 63))[0] is not first[0]


def test_grid_priors__forgets_the_sizes_used_longest_ago() -> None:
    generator = build()

    def anchors_of(height: int) -> torch.Tensor:
        size = (height, 64)
        return generator.grid_priors(level_sizes(size, 3, 7), image_size=size)[0]

    first, second = anchors_of(64), anchors_of(65)
    for height in range(66, 66 + SETS_KEPT - 1):
        anchors_of(height)
        assert anchors_of(64) is first  # used all the time
    assert anchors_of(65) is not second
    assert torch.equal(anchors_of(65), second)
    assert len(generator._cache) == SETS_KEPT


def test_ratios__are_the_inverse_of_mmdets() -> None:
    (own,) = build(strides=[8], scales_per_octave=1, aspect_ratios=(2.0,)).base_anchors
    (theirs,) = AnchorGenerator([8], ratios=[0.5], scales=[4], center_offset=0.5).base_anchors
    torch.testing.assert_close(own, theirs)
    assert own[0, 2] - own[0, 0] > own[0, 3] - own[0, 1]


def test_base_anchors__as_mmdets_heads_ask_for_them() -> None:
    generator = build(strides=[8, 16], octave_base_scale=[4.0, 3.0])
    assert generator.num_base_priors == generator.num_base_anchors == [9, 9]
    assert [tuple(x.shape) for x in generator.base_anchors] == [(9, 4), (9, 4)]
    first = generator.grid_priors([(1, 1), (1, 1)])
    assert all(torch.equal(a, b) for a, b in zip(first, generator.base_anchors, strict=True))
    flags = generator.valid_flags([(2, 2), (1, 1)], (16, 16), device='cpu')
    assert [len(x) for x in flags] == [36, 9]


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(stride_mode='exact'), "stride_mode='exact'.*fractional, power_of_two"),
        (dict(octave_base_scale=[4.0, 4.0]), '2 values for 5 levels'),
    ],
)
def test_constructor__refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EfficientDetAnchorGenerator(**settings)
