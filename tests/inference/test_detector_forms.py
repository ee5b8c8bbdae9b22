"""The forms of a detector: folded, of less precision, with a stream of images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fake_runtime import small_config

from effdet_plugin.errors import ConfigError
from effdet_plugin.inference import Detector

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def raw(detector: Detector) -> torch.Tensor:
    model: Any = detector.model
    with torch.no_grad():
        image = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(0))
        return torch.cat([x.flatten() for x in model.bbox_head(model.extract_feat(image))[1]])


def test_detector__fast_is_the_same_network() -> None:
    slow, fast = (Detector(small_config(), 'none', 'cpu', fast=fast) for fast in (False, True))
    assert not any('BatchNorm' in type(module).__name__ for module in fast.model.modules())
    expected = raw(slow)
    torch.testing.assert_close(
        raw(fast), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
    )
    assert len(fast(IMAGE)[0].pred_instances) > 0


def test_detector__streams_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            read.append(1)
            yield IMAGE

    detector = Detector(small_config(), 'none', 'cpu', batch_size=2)
    stream = detector.stream(endless())
    assert next(stream).ori_shape == (60, 80)
    assert len(read) == 2
    assert len(detector(np.stack([IMAGE] * 3))) == 3


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ((), 'give a checkpoint'),
        (('d0_coco',), 'needs a checkpoint'),
        (('a.pth', 'own.py'), 'config first'),
        (('d0_coco', 'none', 'cpu', 25), '25 % is 0.25'),
        (('d0_coco', 'none', 'cpu', 0.1, 0), 'batch_size=0'),
        (('d0_coco', 'none', 'cpu', 0.1, 1.5), 'batch_size=1.5'),
    ],
)
def test_detector__refuses(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Detector(*arguments)


def test_detector__precision() -> None:
    assert len(Detector(small_config(), 'none', 'cpu', precision='bf16')(IMAGE)) == 1
    with pytest.raises(ConfigError, match='needs a GPU'):
        Detector(small_config(), 'none', 'cpu', precision='fp16')
