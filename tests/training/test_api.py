"""``from effdet_plugin import Detector``: train, predict, test and export in a line each."""

from pathlib import Path
from typing import Any

import pytest

import effdet_plugin
from effdet_plugin import Detector, inference
from effdet_plugin.api import best_checkpoint
from effdet_plugin.errors import CheckpointError, ConfigError


@pytest.fixture(scope='module')
def trained(
    data: Path, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Detector:
    folder = tmp_path_factory.mktemp('api')
    model = Detector('lite0', image_size=64, device='cpu')
    options = [f'{key}={value}' for key, value in small.items() if 'max_epochs' not in key]
    path = model.train(data=data, epochs=1, work_dir=folder / 'run', cfg_options=options)
    assert path.parent == folder / 'run'
    return model


def test_train__then_predict_and_test(trained: Detector, data: Path) -> None:
    found = trained.predict(str(data / '10.png'), score_thr=0.0)
    assert found.pred_instances.bboxes.shape[1] == 4
    assert 0 < len(found.pred_instances) <= 100
    assert trained.predict(data / '10.png', score_thr=1.0).pred_instances.scores.numel() == 0
    several = trained.predict([data / '10.png', data / '11.png'], score_thr=0.0)
    assert len(several) == 2
    same = several[0].pred_instances
    assert (same.scores - found.pred_instances.scores).abs().max() < 1e-5
    metrics = trained.test(data)
    assert 0 <= metrics['mAP_50'] <= 1
    assert len(metrics) >= 12


@pytest.mark.export
def test_export__a_file_that_predicts(trained: Detector, data: Path, tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    path = trained.export('onnx', tmp_path / 'm.onnx', nms='hard')
    found = Detector(path).predict(data / '10.png', score_thr=0.0)
    assert len(found.pred_instances)


def test_predict__another_thread_asks_for_other_settings(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so between the choice of a detector and its use."""
    model = Interrupted('a.pth')
    monkeypatch.setattr(inference, 'Detector', Told)
    assert model.predict([data], score_thr=0.5) == [0.5]
    assert model.others == [0.25]
    assert model.predict([data], score_thr=0.5) == [0.5]


class Told:
    """In the place of a detector: says with which threshold it was made."""

    def __init__(self, *_: Any, score_thr: float, **__: Any) -> None:
        self.score_thr = score_thr

    def __call__(self, images: list[Path]) -> list[float]:
        return [self.score_thr for _ in images]


class Interrupted(Detector):
    """Predicts with other settings as soon as it has a detector."""

    others: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == '_detector' and value is not None and self.others is None:
            self.others = []
            self.others = self.predict(['b.png'], score_thr=0.25)


def test_detector__mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='has no weights yet: train it'):
        Detector('lite0').predict('a.jpg')
    with pytest.raises(ConfigError, match='--epochs 0'):
        Detector('lite0').train(data=tmp_path, epochs=0)
    with pytest.raises(CheckpointError, match='has written no checkpoint'):
        best_checkpoint(tmp_path)


def test_package__has_no_other_lazy_name() -> None:
    assert effdet_plugin.Detector is Detector
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        _ = effdet_plugin.Detektor
