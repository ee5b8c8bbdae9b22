"""An evaluation of what carries its config: a checkpoint of ours, an exported file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runtime import FakeRuntime

from effdet_plugin.config import load, resize_mode_of
from effdet_plugin.config.embedded import embed
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.inference import TTA, runtime_model
from effdet_plugin.trained_model import TrainedModel, load_trained
from effdet_plugin.training import TestSettings, evaluate
from effdet_plugin.training.evaluate import _prepare
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
Options = dict[str, Any]
NO_WORKERS = {'test_dataloader.num_workers': 0}


@pytest.fixture(scope='module')
def trained(options: Options, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Scores that differ; the file carries config and classes."""
    cfg = load(CONFIG, image_size=128, options=options)
    model: Any = load_trained(cfg, 'none', 'cpu').model
    torch.nn.init.normal_(model.bbox_head.cls_tower.predict.pointwise.weight, std=2e5)
    path = tmp_path_factory.mktemp('trained') / 'two.pth'
    meta = {'dataset_meta': {'classes': ('circle', 'square')}, 'config': embed(cfg)}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return load_trained(cfg, path, 'cpu')


@pytest.fixture
def settings(trained: TrainedModel, data: Path) -> TestSettings:
    checkpoint = str(trained.checkpoint)
    return TestSettings(None, checkpoint, data=data / 'val.json', cfg_options=NO_WORKERS)


def test_evaluate__without_a_config_is_the_same(
    settings: TestSettings, trained: TrainedModel, options: Options
) -> None:
    own = evaluate(settings)
    assert own['coco/images'] == 3
    named = evaluate(TestSettings(CONFIG, settings.checkpoint, image_size=128, cfg_options=options))
    assert own == named


@pytest.mark.parametrize(('end', 'kind'), [('raw', 'float'), ('postprocess', 'uint8')])
def test_evaluate__a_file_is_the_same(
    settings: TestSettings, trained: TrainedModel, options: Options,
    monkeypatch: pytest.MonkeyPatch, end: str, kind: str,
) -> None:  # fmt: skip
    expected = evaluate(settings)
    runtime = FakeRuntime(trained, end=end, input=kind)
    monkeypatch.setattr(runtime_model, 'load_runtime', lambda *_: runtime)
    of_file = replace(settings, checkpoint='m.onnx')
    assert evaluate(of_file) == pytest.approx(expected, abs=1e-6)
    # The config's own data; the file's size, not the config's.
    own = TestSettings(
        CONFIG, 'm.onnx', cfg_options={k: v for k, v in options.items() if 'model' not in k}
    )
    assert evaluate(own) == pytest.approx(expected, abs=1e-6)
    for change, words in (
        ({'tta': TTA()}, 'test-time augmentation'),
        ({'image_size': 256}, 'its input is 128x128'),
        ({'cfg_options': ['model.neck.num_cells=1']}, 'cannot be changed'),
        ({'data': None}, 'give --data'),
    ):
        with pytest.raises(ConfigError, match=words):
            evaluate(replace(of_file, **change))  # type: ignore[arg-type]


def test_evaluate__size_and_options_of_the_carried_config(settings: TestSettings) -> None:
    assert evaluate(replace(settings, image_size='192x128'))['coco/images'] == 3
    with pytest.raises(ConfigError, match='did you mean'):
        evaluate(replace(settings, cfg_options=['test_dataloader.batch_sise=1']))


def test_evaluate__needs_data_or_a_config(
    settings: TestSettings, trained: TrainedModel, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match='without CONFIG, give --data DIR'):
        evaluate(replace(settings, data=None))
    torch.save({'state_dict': trained.model.state_dict()}, tmp_path / 'bare.pth')
    with pytest.raises(CheckpointError, match=r'bare\.pth: carries no config'):
        evaluate(replace(settings, checkpoint=str(tmp_path / 'bare.pth')))


@pytest.mark.parametrize(
    ('trained_by', 'asked', 'used', 'words'),
    [
        ('letterbox', None, 'stretch_mediapipe', 'as MediaPipe Tasks do it'),
        ('letterbox', 'letterbox', 'letterbox', 'as asked for'),
        ('stretch', None, 'stretch', 'as the runtime does it'),
    ],
)
def test_evaluate__a_tflite_sees_images_as_its_runtime_does(
    settings: TestSettings, trained: TrainedModel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, trained_by: str, asked: str | None, used: str, words: str,
) -> None:  # fmt: skip
    runtime = FakeRuntime(trained, format='tflite', resize_mode=trained_by)
    monkeypatch.setattr(runtime_model, 'load_runtime', lambda *_: runtime)
    changes = [f'resize_mode={asked}'] if asked else []
    cfg, remark, _ = _prepare(
        replace(settings, checkpoint='m.tflite', cfg_options=changes), tmp_path
    )
    assert resize_mode_of(cfg.test_dataloader.dataset) == used
    assert words in remark
