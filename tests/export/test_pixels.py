"""Resizing and normalisation inside a graph, beside the pipeline's own."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fake_runtime import metadata_of, small_config
from torch import nn

from effdet_plugin.datasets.transforms import LetterBox
from effdet_plugin.errors import ConfigError
from effdet_plugin.export.pixels import FromPixels
from effdet_plugin.models.data_preprocessor import EfficientDetDataPreprocessor
from effdet_plugin.trained_model import TrainedModel

SIZE = (96, 160)
# ImageNet's mean is no grey level: padding with any colour before normalising would not be 0.
NUMBERS = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), pad_value=0.0)
SHAPES = [(97, 131), (480, 640), SIZE, (192, 320), (1, 500), (300, 2), (90, 60), (701, 1203)]


def metadata(**changes: Any) -> Any:
    trained = TrainedModel(small_config(SIZE), nn.Identity(), ('circle', 'square'))  # type: ignore[arg-type]
    return metadata_of(trained, **{'input': 'uint8', **NUMBERS, **changes})


def smooth(shape: tuple[int, int]) -> np.ndarray:
    """Noise of several pixels: neighbours differ by little, as in photographs."""
    rng = np.random.default_rng(shape[0])
    coarse = rng.integers(0, 256, (max(shape[0] // 6, 1), max(shape[1] // 6, 1), 3), np.uint8)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def by_pipeline(image: np.ndarray, dtype: str, mode: str) -> tuple[torch.Tensor, tuple[int, int]]:
    found = LetterBox(SIZE, dtype, mode).transform({'img': image})
    pixels = torch.from_numpy(found['img']).permute(2, 0, 1)[None]
    valid = found['img_shape']
    return EfficientDetDataPreprocessor(**NUMBERS)._normalize(pixels, [valid]), valid


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize(
    ('dtype', 'mode'), [('uint8', 'letterbox'), ('float32', 'letterbox'), ('uint8', 'stretch')]
)
def test_pixels__are_those_of_the_pipeline(shape: tuple[int, int], dtype: str, mode: str) -> None:
    image = smooth(shape)
    module = FromPixels(metadata(resize_dtype=dtype, resize_mode=mode))
    found = module(torch.from_numpy(image)[None])
    expected, valid = by_pipeline(image, dtype, mode)
    assert found.shape == expected.shape
    gaps = (found - expected).abs()
    if dtype == 'float32':
        assert gaps.max() < 2e-4
    else:  # OpenCV's vector code leaves its last pixels to other code: one grey level there
        assert gaps.max() < 1.01 / min(NUMBERS['std'])  # type: ignore[type-var]
        assert (gaps > 1e-3).float().mean() < (0.2 if min(shape) < 3 else 0.005)
    # Padding is exact: a colour that was normalised would not be.
    assert (found[..., valid[0] :, :] == 0).all()
    assert (found[..., valid[1] :] == 0).all()


def test_pixels__a_batch_is_its_images_and_exports() -> None:
    images = torch.from_numpy(np.stack([smooth((64, 100)), smooth((64, 100))[::-1].copy()]))
    module = FromPixels(metadata(resize_dtype='uint8'))
    alone = torch.cat([module(image[None]) for image in images])
    assert torch.equal(module(images), alone)
    size = torch.export.Dim('h', min=1, max=9999), torch.export.Dim('w', min=1, max=9999)
    program = torch.export.export(
        module, (images,), dynamic_shapes=({1: size[0], 2: size[1]},), strict=False
    )
    for shape in [(33, 200), (150, 41)]:
        other = torch.from_numpy(np.stack([smooth(shape)] * 2))
        assert torch.equal(program.module()(other), module(other))


def test_pixels__a_mode_that_samples_otherwise_is_refused() -> None:
    with pytest.raises(ConfigError, match='stretch_mediapipe'):
        FromPixels(metadata(resize_mode='stretch_mediapipe'))
