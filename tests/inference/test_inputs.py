"""Images as programs hold them: the same pixels in each form, or one line that refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.files import write_image
from effdet_plugin.images import read_image
from effdet_plugin.inference.inputs import as_image

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
GREY = RGB[..., 0]
ALPHA = RGB[..., :1] // 2
THREE_GREY = np.repeat(GREY[..., None], 3, axis=2)


def _fortran(pixels: np.ndarray) -> np.ndarray:
    return np.asfortranarray(pixels)


@pytest.mark.parametrize(
    ('make', 'expected'),
    [
        (lambda: RGB, RGB),
        (lambda: _fortran(RGB), RGB),
        (lambda: RGB[::-1], RGB[::-1]),
        (lambda: RGB.transpose(2, 0, 1), RGB),
        (lambda: RGB.astype(np.float32) / 255, RGB),
        (lambda: RGB.astype(np.float64) / 255, RGB),
        (lambda: RGB.astype(np.uint16) << 8, RGB),
        (lambda: np.concatenate([RGB, ALPHA], 2), RGB),
        (lambda: GREY, THREE_GREY),
        (lambda: GREY[..., None], THREE_GREY),
        (lambda: GREY[None], THREE_GREY),
        (lambda: np.concatenate([GREY[..., None], ALPHA], 2), THREE_GREY),
        (lambda: torch.from_numpy(RGB.copy()), RGB),
        (lambda: torch.from_numpy(RGB.copy()).permute(2, 0, 1), RGB),
        (lambda: torch.from_numpy(RGB.copy()).permute(2, 0, 1) / 255, RGB),
        (lambda: (torch.from_numpy(RGB.copy()) / 255).requires_grad_(), RGB),
        (lambda: torch.from_numpy(GREY.copy())[None], THREE_GREY),
        (lambda: Pillow.fromarray(RGB), RGB),
        (lambda: Pillow.fromarray(GREY), THREE_GREY),
        (lambda: Pillow.fromarray(np.concatenate([RGB, ALPHA], 2)), RGB),
        (lambda: Pillow.fromarray(np.concatenate([GREY[..., None], ALPHA], 2)), THREE_GREY),
        (lambda: Pillow.fromarray(GREY.astype(np.uint16) << 8), THREE_GREY),
        (lambda: Pillow.fromarray(GREY.astype(np.int32) << 8), THREE_GREY),
        (lambda: Pillow.fromarray(GREY.astype(np.float32) / 255), THREE_GREY),
        (lambda: Pillow.fromarray(GREY > 99), np.repeat((GREY[..., None] > 99) * 255, 3, 2)),
        (lambda: Pillow.fromarray(GREY).convert('P'), THREE_GREY),
    ],
)
def test_as_image(make: Callable[[], Any], expected: np.ndarray) -> None:
    image = as_image(make())
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(image, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_as_image__half_precision_is_near(dtype: torch.dtype) -> None:
    found = as_image((torch.from_numpy(RGB.copy()) / 255).to(dtype))
    assert np.abs(found.astype(int) - RGB).max() <= 1


def test_as_image__order_of_arrays_and_tensors_only() -> None:
    bgr = np.ascontiguousarray(RGB[..., ::-1])
    with_alpha = np.concatenate([bgr, ALPHA], 2)
    for image in (bgr, with_alpha, torch.from_numpy(bgr).permute(2, 0, 1), Pillow.fromarray(RGB)):
        assert np.array_equal(as_image(image, 'bgr'), RGB)
    assert np.array_equal(as_image(GREY, 'bgr'), THREE_GREY)
    with pytest.raises(ConfigError, match='channel_order'):
        as_image(RGB, 'gbr')


def test_as_image__a_float_may_leave_the_range_by_rounding() -> None:
    assert as_image(np.full((4, 5, 3), 1.0000001)).max() == 255


@pytest.mark.parametrize('orientation', range(1, 9))
def test_as_image__pillow_is_turned_as_a_file_is(tmp_path: Path, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[274] = orientation
    path = tmp_path / 'a.png'
    Pillow.fromarray(RGB).save(path, exif=exif)
    with Pillow.open(path) as opened:
        assert np.array_equal(as_image(opened), read_image(path))
    assert np.array_equal(as_image(str(path)), read_image(path))


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (RGB.astype(np.float32), 'floats are taken from 0 to 1'),
        (RGB.astype(np.float32) / 127 - 1, 'floats are taken from 0 to 1'),
        (np.full((4, 4, 3), np.nan), 'floats are taken from 0 to 1'),
        (RGB > 9, 'bool.*times 255'),
        (RGB.astype(np.int64), 'int64: its scale is unknown'),
        (RGB.astype(np.uint16), 'nearly black'),
        (RGB.astype(np.complex64), 'complex64'),
        (np.zeros((6, 5, 7), np.uint8), r'\(6, 5, 7\)'),
        (np.zeros((0, 4, 3), np.uint8), r'\(0, 4, 3\)'),
        (np.zeros(5, np.uint8), r'\(5,\)'),
        (np.array([['a.jpg']]), 'scale is unknown'),
        (torch.zeros(2, 2, 3, dtype=torch.bool), 'bool'),
        (torch.zeros(0), r'\(0,\)'),
        (Pillow.fromarray(np.full((4, 4), 70000, np.int32)), 'int32: its scale is unknown'),
        (None, 'cv2.imread'),
        (3, 'int is no image'),
        (b'bytes', 'bytes is no image'),
    ],
)
def test_as_image__refuses_in_one_line(image: Any, words: str) -> None:
    with pytest.raises(DatasetError, match=words) as error:
        as_image(image)
    assert '\n' not in str(error.value)


def test_as_image__a_cut_file_of_pillow(tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg', np.tile(RGB, (9, 9, 1)))
    content = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'a.jpg').write_bytes(content[: len(content) // 2])
    with Pillow.open(tmp_path / 'a.jpg') as opened, pytest.raises(DatasetError, match=r'a\.jpg'):
        as_image(opened)
