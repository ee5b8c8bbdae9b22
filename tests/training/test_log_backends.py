"""W&B and MLflow: what they are given, and what is said where they refuse.

MLflow is a stand-in that refuses what 3.17 refuses; both packages were tried by hand, too.
"""

import re
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from effdet_plugin.errors import ConfigError, InstallError
from effdet_plugin.training import TrainSettings, train
from effdet_plugin.training.log_backends import add_backends, check_backends
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'


class FakeMLflow(ModuleType):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__('mlflow')
        self.__spec__ = ModuleSpec('mlflow', None)
        self.uri, self.experiment = '', ''
        self.metrics: dict[str, float] = {}
        self.params: dict[str, Any] = {}
        self.files: list[str] = []

    def set_tracking_uri(self, uri: str) -> None:
        if not uri.startswith(('sqlite:', 'http:')):
            raise OSError('the filesystem tracking backend is in maintenance mode')
        if uri.startswith('http:'):
            raise OSError('connection refused\nsecond line')
        self.uri = uri

    def get_experiment_by_name(self, name: str) -> None:
        self.experiment = name

    def create_experiment(self, name: str, artifact_location: str) -> None:
        assert artifact_location.startswith('file://')

    def set_experiment(self, name: str) -> None:
        assert name == self.experiment

    def log_params(self, params: dict[str, Any]) -> None:
        assert all(len(str(value)) <= 500 for value in params.values())
        self.params.update(params)

    def log_text(self, text: str, name: str) -> None:
        self.files.append(name)

    def log_image(self, image: Any, name: str) -> None:
        assert image.shape[2] == 3
        assert name.endswith('.png')
        self.files.append(name)

    def log_artifact(self, path: str, folder: str) -> None:
        self.files.append(Path(path).name)

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        for name, value in metrics.items():
            assert re.fullmatch(r'[\w\-. :/]+', name), name
            assert isinstance(value, float)
        self.metrics.update(metrics)

    def end_run(self) -> None:
        self.files.append('end')


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMLflow:
    module = FakeMLflow()
    monkeypatch.setitem(sys.modules, 'mlflow', module)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    return module


def test_mlflow__has_losses_metrics_images_and_the_config(
    mlflow: FakeMLflow, data: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    options = small | {'train_cfg.max_epochs': 1}
    folder = tmp_path / 'runs' / 'first'
    train(TrainSettings(CONFIG, data, folder, image_size=64, cfg_options=options, log=['mlflow']))
    assert mlflow.uri == f'sqlite:///{(tmp_path / "runs" / "mlflow.db").as_posix()}'
    assert mlflow.experiment == 'first'
    assert {'loss', 'loss_cls', 'coco/bbox_mAP', 'coco/bbox_AR_100'} <= set(mlflow.metrics)
    assert mlflow.params['train_cfg.max_epochs'] == 1
    assert 'config.py' in mlflow.files
    assert 'val/0/1.png' in mlflow.files
    assert mlflow.files[-1] == 'end'
    assert not [name for name in mlflow.files if name.endswith('.json')]


def test_mlflow__a_server_that_refuses_is_one_line(
    mlflow: FakeMLflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:1')
    backends: dict[str, Any] = {}
    runner = SimpleNamespace(
        visualizer=SimpleNamespace(_vis_backends=backends),
        log_dir=str(tmp_path),
        work_dir=str(tmp_path),
        cfg=Config(),
    )
    with pytest.raises(ConfigError) as refused:
        add_backends(cast(Runner, runner), ['mlflow'])
    assert str(refused.value) == '--log mlflow: OSError: connection refused'
    assert not backends


def test_backends__mistakes() -> None:
    check_backends([])
    check_backends(['none'])
    with pytest.raises(ConfigError, match='--log csv: choose one of tensorboard, wandb, mlflow'):
        check_backends(['csv'])
    if find_spec('wandb') is None:
        with pytest.raises(InstallError, match='--log wandb: not installed'):
            check_backends(['wandb'])
