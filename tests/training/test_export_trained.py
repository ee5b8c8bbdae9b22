"""The whole road: a training, its best checkpoint as a file, and the file's AP."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tflite_support import needs_packages

from effdet_plugin.errors import CheckpointError, ConfigError, InstallError
from effdet_plugin.export import load_runtime
from effdet_plugin.training import (
    TrainSettings,
    check_export,
    export_trained,
    next_command,
    train,
)
from effdet_plugin.training.reporting import best_checkpoint
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_mediapipe.py'


def settings(data: Path, folder: Path, small: dict[str, Any]) -> TrainSettings:
    return TrainSettings(CONFIG, data, folder, image_size=128, cfg_options=small)


@pytest.mark.parametrize(
    ('form', 'precisions'),
    [
        pytest.param('pt2', ['fp32'], marks=pytest.mark.slow),
        pytest.param('tflite', ['fp32', 'int8'], marks=needs_packages),
    ],
)
def test_road__a_line_for_each_file(
    data: Path, tmp_path: Path, small: dict[str, Any], form: str, precisions: list[str]
) -> None:
    run = settings(data, tmp_path / 'run', small)
    check_export(run, form)
    cfg = train(run)
    assert f'--format tflite --out {tmp_path}' in next_command(cfg)
    lines = list(export_trained(run, cfg, form))
    files = [re.fullmatch(r'(.*): [\d.]+ MB, AP50 -?[\d.]+', line) for line in lines]
    paths = [Path(found[1]) for found in files if found]
    assert len(paths) == len(precisions)
    for path, precision in zip(paths, precisions, strict=True):
        known = load_runtime(path).metadata
        assert (known.precision, known.classes) == (precision, ('circle', 'square'))
        assert known.resize_mode == 'stretch_mediapipe'


def test_best_checkpoint__before_the_newest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='has written no checkpoint'):
        best_checkpoint(tmp_path)
    for name in ('best_coco_bbox_mAP_epoch_1.pth', 'epoch_2.pth'):
        (tmp_path / name).touch()
    assert best_checkpoint(tmp_path).name.startswith('best_')
    (tmp_path / 'best_coco_bbox_mAP_epoch_1.pth').unlink()
    assert best_checkpoint(tmp_path).name == 'epoch_2.pth'


def test_check__before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    run = settings(tmp_path, tmp_path, {})
    with pytest.raises(ConfigError, match=r'--export coreml: .*tflite'):
        check_export(run, 'coreml')
    with pytest.raises(ConfigError, match='several processes'):
        check_export(replace(run, launcher='pytorch'), 'tflite')
    monkeypatch.setitem(sys.modules, 'litert_torch', None)
    with pytest.raises(InstallError, match=r'litert-torch is not installed: .*pip install'):
        check_export(run, 'tflite')
