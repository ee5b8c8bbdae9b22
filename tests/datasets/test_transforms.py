from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mmdet.structures.bbox import HorizontalBoxes

from effdet_plugin.datasets import LetterBox, ScaleJitterCrop, ToRGB
from effdet_plugin.errors import ConfigError
from effdet_plugin.images import resize, resize_window
from support import random_boxes

sides = st.integers(1, 90)
sizes = st.tuples(st.integers(8, 64), st.integers(8, 64))


def results(height: int, width: int, boxes: int = 6) -> dict[str, Any]:
    """An image whose values tell the place, with labelled boxes."""
    rows, cols = np.mgrid[:height, :width]
    return {
        'img': np.stack([rows, cols, rows + cols], axis=-1).astype(np.uint8),
        'gt_bboxes': HorizontalBoxes(random_boxes(boxes, (height, width))),
        'gt_bboxes_labels': np.arange(boxes),
        'gt_ignore_flags': np.arange(boxes) % 2 == 0,
    }


def test_to_rgb__twice_is_nothing() -> None:
    given_ = results(4, 5)['img']
    once = ToRGB().transform({'img': given_})['img']
    assert once.flags.c_contiguous
    assert np.array_equal(once[..., 0], given_[..., 2])
    assert np.array_equal(ToRGB().transform({'img': once})['img'], given_)


@given(height=sides, width=sides, size=sizes, dtype=st.sampled_from(['uint8', 'float32']))
def test_letter_box__one_scale_top_left_zeros_beyond(
    height: int, width: int, size: tuple[int, int], dtype: str
) -> None:
    given_ = results(height, width)
    before = given_['gt_bboxes'].tensor.clone()
    found = LetterBox(size, dtype).transform(given_)
    assert found['img'].shape == (*size, 3)
    assert found['img'].dtype == np.dtype(dtype)
    valid = found['img_shape']
    assert max(valid[0] / size[0], valid[1] / size[1]) > 1 - 1 / min(size) - 1e-6
    assert not found['img'][valid[0] :].any()
    assert not found['img'][:, valid[1] :].any()
    scale = found['scale_factor'][0]
    assert found['scale_factor'] == (scale, scale)
    torch.testing.assert_close(found['gt_bboxes'].tensor, before * scale)


def test_letter_box__the_size_it_has_is_left_alone() -> None:
    given_ = results(24, 32)
    image = given_['img'].copy()
    found = LetterBox((24, 32)).transform(given_)
    assert np.array_equal(found['img'], image)
    assert found['scale_factor'] == (1.0, 1.0)


def test_letter_box__without_boxes() -> None:
    assert 'gt_bboxes' not in LetterBox((8, 8)).transform({'img': results(4, 4)['img']})


@given(
    height=st.integers(4, 90),
    width=st.integers(4, 90),
    size=sizes,
    scale=st.floats(0.1, 2.0),
    offsets=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_jitter__boxes_stay_in_the_image_and_keep_their_labels(
    height: int, width: int, size: tuple[int, int], scale: float, offsets: tuple[float, float]
) -> None:
    found = ScaleJitterCrop(size).crop(results(height, width), scale, offsets)
    assert found['img'].shape == (*size, 3)
    boxes = found['gt_bboxes'].tensor
    limits = torch.tensor([size[1] - 1, size[0] - 1])
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= limits).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    labels = found['gt_bboxes_labels']
    assert len(labels) == len(boxes) == len(found['gt_ignore_flags'])
    assert np.array_equal(found['gt_ignore_flags'], labels % 2 == 0)
    valid = found['img_shape']
    assert not found['img'][valid[0] :].any()
    assert not found['img'][:, valid[1] :].any()


def test_jitter__a_box_moves_with_its_pixels() -> None:
    """A bright square is where its box says, after any crop that shows all of it."""
    crop, seen = ScaleJitterCrop((64, 64), resize_dtype='float32'), 0
    for seed in range(40):
        np.random.seed(seed)
        image = np.zeros((80, 60, 3), np.uint8)
        image[30:50, 20:40] = 255
        box = HorizontalBoxes(torch.tensor([[20.0, 30.0, 40.0, 50.0]]))
        found = crop.transform({'img': image, 'gt_bboxes': box})
        if len(found['gt_bboxes']) == 0:
            continue
        x1, y1, x2, y2 = found['gt_bboxes'].tensor[0].tolist()
        if min(x1, y1) > 0 and max(x2, y2) < 63:
            rows, cols = np.nonzero(found['img'][..., 0] > 127)
            edges = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
            assert edges == pytest.approx([x1, y1, x2, y2], abs=1.01)
            seen += 1
    assert seen > 10


def test_jitter__draws_are_numpys_and_in_range() -> None:
    crop = ScaleJitterCrop((32, 32), ratio_range=(0.5, 0.5))
    found = crop.transform(results(64, 64))
    assert found['img_shape'] == (16, 16)
    images = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        images.append(ScaleJitterCrop((32, 32)).transform(results(64, 64))['img'])
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_jitter__min_side_drops_slivers() -> None:
    given_ = results(64, 64, boxes=1)
    given_['gt_bboxes'] = HorizontalBoxes(torch.tensor([[10.0, 10.0, 12.0, 40.0]]))
    assert len(ScaleJitterCrop((64, 64), min_side=3.0).crop(given_, 1.0, (0, 0))['gt_bboxes']) == 0


def test_size__missing_or_unknown_type() -> None:
    with pytest.raises(ConfigError, match=r'LetterBox: .*image_size.*EfficientDetDataset'):
        LetterBox().transform(results(4, 4))
    with pytest.raises(ValueError, match="resize_dtype='float16'"):
        LetterBox((4, 4), resize_dtype='float16')


@pytest.mark.parametrize('size', [(64,), (0, 64), 'large', 3.5, (64, 64, 3)])
def test_letter_box__a_size_that_is_none(size: Any) -> None:
    with pytest.raises(ConfigError, match='image_size='):
        LetterBox(size)


@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
@given(
    shape=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    window=st.tuples(*[st.floats(0, 0.999)] * 4),
    mode=st.sampled_from(['letterbox', 'stretch_mediapipe']),
    is_flipped=st.booleans(),
)
@example(  # the part would have the size that it has already, and would be copied
    shape=(106, 174),
    size=(105, 171),
    window=(0, 0, 0.456, 0.09),
    mode='letterbox',
    is_flipped=False,
)
def test_resize_window__equals_the_window_of_the_whole(
    dtype: str, shape: Any, size: Any, window: Any, mode: str, is_flipped: bool
) -> None:
    generator = np.random.default_rng(shape[0] * 1000 + size[1])
    image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8).astype(dtype)
    image = image[:, ::-1] if is_flipped else image
    top, left = (int(share * side) for share, side in zip(window[:2], size, strict=True))
    rows = slice(top, top + 1 + int(window[2] * (size[0] - top)))
    columns = slice(left, left + 1 + int(window[3] * (size[1] - left)))
    whole = resize(np.ascontiguousarray(image), *size, mode)
    found = resize_window(image, size, mode, rows, columns)
    assert np.array_equal(found, whole[rows, columns])


def test_jitter__the_image_lies_in_planes() -> None:
    """Packing as (3, H, W) then copies nothing."""
    found = ScaleJitterCrop((32, 40)).crop(results(20, 30), 1.5, (0.5, 0.5))['img']
    assert found.shape == (32, 40, 3)
    assert found.transpose(2, 0, 1).flags.c_contiguous
