"""Plain options of a training as its settings."""

import re
from pathlib import Path
from typing import Any

import pytest

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError
from effdet_plugin.training import plain_settings, prepare
from effdet_plugin.training.plain import parse_seconds


def test_plain_settings__reach_the_config(data: Path, tmp_path: Path) -> None:
    settings = plain_settings(
        data=data, epochs=7, batch_size=3, lr=0.004, freeze=['backbone'], image_size='96x64',
        work_dir=tmp_path / 'run', cfg_options=['train_cfg.val_interval=7'],
    )  # fmt: skip
    cfg = prepare(settings, scratch=tmp_path).cfg
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (7, 7)
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.optim_wrapper.optimizer.lr == 0.004
    assert cfg.model['freeze'] == '^(backbone)'
    assert cfg.image_size == (64, 96)
    assert cfg.model.backbone.pretrained == 'package'


@pytest.mark.parametrize(
    ('words', 'config', 'network', 'work_dir'),
    [
        (dict(data='x'), 'custom_coco', None, None),
        (dict(data='x', model='d0'), 'custom_coco', 'd0', 'work_dirs/d0'),
        (dict(data='x', model='d0_coco'), 'd0_coco', None, None),
        (dict(data='x', config='lite1_coco', name='trial'), 'lite1_coco', None, 'work_dirs/trial'),
        (dict(model='d2'), 'd2_coco', None, None),
        (dict(config='d2_coco', work_dir='w'), 'd2_coco', None, 'w'),
    ],
)
def test_plain_settings__config(
    words: dict[str, Any], config: str, network: str | None, work_dir: str | None
) -> None:
    settings = plain_settings(**words)
    assert settings.config.stem == config
    assert settings.config.is_file()
    assert settings.network == network
    assert settings.work_dir == (Path(work_dir) if work_dir else None)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ({}, 'nothing to train on: give --data DIR, or a CONFIG such as d0_coco'),
        (dict(config='d0_coco', model='d1'), 'give d0_coco or --model d1, not both'),
        (dict(data='x', model='d9'), '--model d9: neither a network nor a config'),
        (dict(data='x', model=__file__[:-3]), 'neither a network nor a config'),
        (dict(data='x', epochs=0), '--epochs 0: must be above 0'),
        (dict(data='x', lr=float('nan')), '--lr nan: must be above 0'),
        (dict(data='x', name='../x'), '--name ../x: is no name of a folder'),
        (dict(data='x', time='5'), '--time 5: give a time such as 90s, 30m or 2h'),
    ],
)
def test_plain_settings__mistakes(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plain_settings(**words)


def test_plain_settings__a_checkpoint_is_no_network(tmp_path: Path) -> None:
    (tmp_path / 'best.pth').touch()
    with pytest.raises(ConfigError, match=r'is a file; .* --weights '):
        plain_settings(data='x', model=str(tmp_path / 'best.pth'))


def test_parse_seconds() -> None:
    texts = {'90s': 90, '30m': 1800, '1.5h': 5400, ' 2m ': 120}
    assert {text: parse_seconds(text) for text in texts} == texts
    assert parse_seconds(45) == 45
    for wrong in ('', '30', 'm', '-3m', '0s', '3 d', 0, -1, float('inf'), float('nan')):
        with pytest.raises(ConfigError, match='--time'):
            parse_seconds(wrong)


@pytest.mark.parametrize('name', ['lite0', 'lite4', 'd0', 'd7x'])
def test_use_network__keeps_the_recipe(name: str) -> None:
    own, other = load('custom_coco'), load(f'{name}_coco')
    cfg = load('custom_coco', network=name, options=['model.neck.num_cells=2'])
    assert cfg.model.backbone.model_name == other.model.backbone.model_name
    assert cfg.model.neck.out_channels == other.model.neck.out_channels
    assert cfg.model.neck.num_cells == 2  # a person's option comes last
    assert cfg.image_size == other.image_size
    assert cfg.train_dataloader.dataset.image_size == other.image_size
    assert cfg.model.bbox_head.norm_momentum == cfg.model.neck.norm_momentum == 0.1
    starts = {'lite0': 'package', 'lite4': True}
    assert cfg.model.backbone.pretrained == starts.get(name, 'timm:aa_in1k')
    assert cfg.model.channels_last is True
    assert cfg.optim_wrapper == own.optim_wrapper
    assert cfg.train_cfg == own.train_cfg


def test_use_network__needs_an_efficientdet() -> None:
    with pytest.raises(ConfigError, match='FCOS is no EfficientDet to put d0 into'):
        load('fcos_r18_bifpn_coco', network='d0')
