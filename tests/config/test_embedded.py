"""The config in a checkpoint: what is built from it, and that nothing of it runs."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from effdet_plugin.config import load, tell_differences
from effdet_plugin.config.dataset_nodes import class_names
from effdet_plugin.config.embedded import embed, embedded_config
from effdet_plugin.costs import build_on_meta
from effdet_plugin.errors import CheckpointError
from effdet_plugin.inference.detector import Detector, _test_pipeline
from support import REPOSITORY

CONFIGS = REPOSITORY / 'configs'
CLASSES = ('first', 'second')


def checkpoint_of(config: Any, classes: tuple[str, ...] | None = None) -> dict[str, Any]:
    text = embed(config) if isinstance(config, Config) else json.dumps(config)
    meta = {} if classes is None else {'dataset_meta': {'classes': classes}}
    return {'meta': {'config': text, **meta}}


@pytest.fixture(scope='module')
def plain() -> dict[str, Any]:
    """The config of a small network as it is read from a checkpoint."""
    cfg = load(CONFIGS / 'efficientdet' / 'lite0_coco.py')
    cfg.model.backbone.update(model_name='test_efficientnet', pretrained=False)
    cfg.model.neck.update(in_channels=[32, 48, 64], out_channels=16, num_cells=1)
    cfg.model.bbox_head.update(in_channels=16, stacked_convs=1, num_classes=2)
    return json.loads(embed(cfg))


def names() -> list[str]:
    found = sorted(CONFIGS.glob('*/*.py'))
    return [str(path.relative_to(CONFIGS)) for path in found][::4]


@pytest.mark.parametrize('name', names())
def test_configs__pipeline_and_classes_are_those_of_the_file(name: str) -> None:
    init_default_scope('mmdet')
    cfg = load(CONFIGS / name)
    found = embedded_config(checkpoint_of(cfg))
    ours, theirs = _test_pipeline(found), _test_pipeline(cfg)
    assert ours[1] == theirs[1]
    for own, other in zip(ours[0].transforms, theirs[0].transforms, strict=True):
        assert type(own) is type(other)
        assert {k: str(v) for k, v in vars(own).items()} == {
            k: str(v) for k, v in vars(other).items()
        }
    expected = class_names(cfg.test_dataloader.dataset)
    assert tuple(found.test_dataloader.dataset.metainfo.classes) == expected


def test_embed__no_folder_of_the_cache() -> None:
    cfg = load(CONFIGS / names()[0])
    cfg.train_dataloader.dataset.cache = 'a/folder/of/this/machine'
    assert 'a/folder/of' not in embed(cfg)
    assert cfg.train_dataloader.dataset.cache


def test_model__is_that_of_the_file(plain: dict[str, Any]) -> None:
    cfg = Config(plain)
    found = embedded_config(checkpoint_of(plain, CLASSES))
    ours, theirs = (build_on_meta(c.model, 2).state_dict() for c in (found, cfg))
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_detector__without_a_config(plain: dict[str, Any], tmp_path: Path) -> None:
    init_default_scope('mmdet')
    checkpoint = checkpoint_of(plain, CLASSES)
    network = MODELS.build(Config(plain).model)
    torch.save({'state_dict': network.state_dict(), **checkpoint}, tmp_path / 'x.pth')
    detector = Detector(None, tmp_path / 'x.pth', device='cpu')
    assert detector.classes == CLASSES
    assert len(detector(torch.zeros(64, 48, 3, dtype=torch.uint8).numpy())) == 1
    with pytest.raises(CheckpointError, match='none: carries no config'):
        Detector(None, 'none')


MARKER = 'effdet_marker'
DOTTED = {'type': 'os.mkdir', 'path': MARKER}


def planted(plain: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy of a config with a value at a place."""
    config = json.loads(json.dumps(plain))
    *path, last = place.split('.')
    node: Any = config
    for key in path:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[int(last) if isinstance(node, list) else last] = value
    return config


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        ('model', DOTTED),
        ('model.type', 'subprocess.Popen'),
        ('model.type', 'effdet_plugin.models.EfficientDet'),
        ('model.type', ['EfficientDet']),
        ('model.type', 'mmpretrain.ResNet'),
        ('model.backbone', DOTTED),
        ('model.backbone.norm_cfg', {'deep': [{'er': DOTTED}]}),
        ('model.backbone.model_name', 'hf-hub:somebody/network'),
        ('model.backbone.model_name', 'https://127.0.0.1/network'),
        ('model.test_cfg', {'nms': {'type': '__import__("os").mkdir("effdet_marker")'}}),
        ('model.bbox_head.warp_mode', '__import__("os").mkdir("effdet_marker")'),
        ('test_dataloader.dataset.pipeline', [DOTTED]),
        ('test_dataloader.dataset.pipeline.0', {'type': 'mmcv.os.mkdir'}),
        ('test_dataloader.dataset.pipeline.0', {'type': 'Albu', 'transforms': [DOTTED]}),
        ('test_dataloader.dataset', {'type': 'os.mkdir', 'pipeline': [DOTTED]}),
        ('test_dataloader', None),
        ('test_dataloader.dataset', 3),
        ('model', None),
        ('model', {'type': 'ResNet'}),
        ('model.bbox_head.num_classes', 'many'),
        ('model.data_preprocessor', {'type': 'Conv2d'}),
        ('model', 'os.mkdir'),
    ],
)
def test_hostile__is_refused_in_a_line(
    plain: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    value: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = checkpoint_of(planted(plain, place, value), CLASSES)
    torch.save({'state_dict': {'a': torch.ones(1)}, **checkpoint}, 'x.pth')
    with pytest.raises(CheckpointError, match=r'^x\.pth: .*give a config') as caught:
        Detector(None, 'x.pth')
    assert '\n' not in str(caught.value)
    assert os.listdir() == ['x.pth']


def test_hostile__what_is_not_needed_is_left_out(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imports, weights from elsewhere, settings of a training, other sections."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'evil_module.py').write_text('raise SystemExit\n')
    weights = {'type': 'Pretrained', 'checkpoint': 'http://127.0.0.1:1/evil.pth'}
    config = planted(plain, 'custom_imports', {'imports': ['evil_module']})
    config |= {'default_hooks': {'a': DOTTED}, 'visualizer': DOTTED, '_base_': ['evil.py']}
    config['test_dataloader']['sampler'] = config['test_dataloader']['dataset']['evil'] = DOTTED
    config['model']['init_cfg'] = config['model']['backbone']['init_cfg'] = weights
    config['model']['backbone']['pretrained'] = weights['checkpoint']
    config['model']['backbone']['model_kwargs'] = {
        'pretrained': True, 'checkpoint_path': 'evil.pth', 'cache_dir': '/evil',
        'pretrained_cfg': {'file': 'evil.pth'}, 'pretrained_cfg_overlay': {'file': 'evil.pth'},
    }  # fmt: skip
    config['model']['_scope_'] = 'evil_module'
    found = embedded_config(checkpoint_of(config, CLASSES))
    text = found.pretty_text
    for word in ('evil', 'pretrained', 'init_cfg', 'os.mkdir', 'custom_imports', '_scope_'):
        assert word not in text
    assert found.keys() == {'model', 'test_dataloader'}
    init_default_scope('mmdet')
    MODELS.build(found.model).init_weights()
    assert 'evil_module' not in sys.modules


@pytest.mark.parametrize('text', ['', '[', '[]', 'import os', '[' * 100_000, '{"model": NaN}', 5])
def test_damaged__is_one_line(text: Any) -> None:
    with pytest.raises(CheckpointError, match=r'give (a|the) config') as caught:
        embedded_config({'meta': {'config': text}})
    assert '\n' not in str(caught.value)
    with pytest.raises(CheckpointError, match='carries no config'):
        embedded_config({'meta': text})


def test_tell_differences__what_no_weight_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    module = sys.modules['effdet_plugin.config.load']
    monkeypatch.setattr(module, 'print_log', lambda text, **_: lines.append(text))
    config = load('d0_coco')
    tell_differences(embed(config), config)
    assert lines == []
    port = load('d0_coco', options={'model.neck.pool_type': 'max_zero'})
    port.model.bbox_head.anchor_generator.aspect_ratios = [1.0, (1.4, 0.7), (0.7, 1.4)]
    tell_differences(embed(port), config)
    assert len(lines) == 2
    assert 'model.neck.pool_type="max_zero", the config has "max"' in lines[0]
    assert 'aspect_ratios=[1.0, [1.4, 0.7], [0.7, 1.4]]' in lines[1]
