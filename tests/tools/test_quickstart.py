"""The quickstart: a new folder for every run, from scenes to the image of predictions."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from effdet_plugin.images import read_image
from support import REPOSITORY

TOOL = str(REPOSITORY / 'tools' / 'quickstart.py')


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The functions of the tool."""
    monkeypatch.setattr(sys, 'path', [str(REPOSITORY / 'tools'), *sys.path])
    return runpy.run_path(TOOL)


def test_new_run_dir__never_one_that_is_there(names: dict[str, Any], tmp_path: Path) -> None:
    first, second = (names['new_run_dir'](tmp_path / 'out') for _ in range(2))
    assert [first.name, second.name] == ['run_1', 'run_2']
    (first / 'epoch_1.pth').touch()
    assert names['new_run_dir'](tmp_path / 'out').name == 'run_3'
    assert (first / 'epoch_1.pth').exists()


def test_quickstart__config_has_the_classes_of_the_scenes() -> None:
    from effdet_plugin.config import load
    from effdet_plugin.demo.scene_painter import CLASSES

    config = load(REPOSITORY / 'configs' / 'efficientdet' / 'quickstart.py')
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.dataset.metainfo.classes == CLASSES
        assert loader.dataset.image_size == config.image_size
    assert config.model.bbox_head.num_classes == len(CLASSES)


@pytest.mark.slow
def test_quickstart__two_steps_from_scenes_to_predictions(
    names: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [
        'train_cfg.max_epochs=2',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2',
    ]
    arguments = ['--out', str(tmp_path), '--train-scenes', '8', '--val-scenes', '2']
    monkeypatch.setattr(
        sys, 'argv', [TOOL, *arguments, '--image-size', '128', '--cfg-options', *options]
    )
    names['main']()
    said = capsys.readouterr()
    assert '2/2' in said.err
    assert 'AP50' in said.out
    assert 'tools/train.py --data DIR' in said.out
    assert read_image(tmp_path / 'run_1' / 'predictions.jpg').shape[1] > 960
