"""The client of the page on serving finds what `Detector` finds in the same file."""

import re
from typing import Any

import numpy as np
import pytest
from fake_runtime import FakeRuntime, small_config, spread_network
from kserve import serving

from effdet_plugin.export.serving import client_info
from effdet_plugin.inference import Detector, runtime_model
from effdet_plugin.trained_model import TrainedModel
from support import REPOSITORY

PAGE = REPOSITORY / 'docs' / 'serving.md'
SIZES = [(60, 80), (201, 100), (300, 37), (128, 192), (1, 5)]


@pytest.fixture(scope='module')
def client() -> dict[str, Any]:
    """The functions of the client."""
    (text,) = re.findall(r'^```python\n# client.py\n(.*?)^```', PAGE.read_text(), re.M | re.S)
    names: dict[str, Any] = {'__name__': 'client'}
    exec(text, names)
    return names


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    found = spread_network(tmp_path_factory.mktemp('trained'))
    return TrainedModel(small_config(), found.model, found.classes)


@pytest.mark.parametrize('kind', ['float', 'uint8'])
@pytest.mark.parametrize('dtype', ['float32', 'uint8'])
def test_client__finds_what_the_detector_finds(
    client: dict[str, Any],
    trained: TrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    dtype: str,
) -> None:
    if kind == 'float':  # the pipeline's own, of the config in the file
        trained.config.test_dataloader.dataset.pipeline[2]['resize_dtype'] = dtype
    runtime = FakeRuntime(trained, end='postprocess', input=kind, resize_dtype=dtype)
    monkeypatch.setattr(runtime_model, 'load_runtime', lambda *_: runtime)
    detector = Detector(None, 'm.onnx', score_thr=0.3)
    info = client_info('m', runtime.metadata)
    rng = np.random.default_rng(0)
    count = 0
    with serving('m', runtime) as address:
        for size in SIZES:
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            boxes, scores, names = client['detect'](address, image, info, score_thr=0.3)
            expected = detector(image)[0].pred_instances
            assert names == [detector.classes[label] for label in expected.labels.tolist()]
            np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
            np.testing.assert_allclose(boxes, expected.bboxes, atol=1e-3)
            count += len(boxes)
    assert count > 20


def test_client__is_short() -> None:
    (text,) = re.findall(r'^```python\n# client.py\n(.*?)^```', PAGE.read_text(), re.M | re.S)
    lines = [line for line in text.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) <= 36
