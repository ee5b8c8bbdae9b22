"""What a training starts from: chosen, written into the config, said, and kept by a resume."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from effdet_plugin.config import load
from effdet_plugin.convert import convert
from effdet_plugin.convert.networks import Structure, state_shapes
from effdet_plugin.download import OFFLINE
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.models.backbones import pretrained
from effdet_plugin.training import (
    TrainSettings,
    dry_run,
    plain_settings,
    prepare,
    start_weights,
    train,
)
from effdet_plugin.training.announce import weights_row
from effdet_plugin.training.start_weights import Start, check_agreement, check_weights, start_for

Options = dict[str, Any]
PACKAGE = 'ImageNet, of an installed package'


@pytest.fixture
def open_settings(settings: TrainSettings, small: Options) -> TrainSettings:
    """A small training in which nobody has named weights."""
    options = {key: value for key, value in small.items() if 'pretrained' not in key}
    return replace(settings, cfg_options=options)


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of a Lite0 with 80 classes, as the search would find them; all 0.01."""
    shapes = state_shapes(Structure('lite0', num_classes=80, fusion='sum'))
    state = {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
    classes = ['person', 'square', *(f'class {n}' for n in range(78))]
    path = tmp_path / 'coco-lite0.pth'
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=classes))), path)
    monkeypatch.setattr(start_weights, 'coco_weights', lambda release, network: path)
    return path


def refuse(*_: Any, **__: Any) -> None:
    raise CheckpointError('google: no answer within 3 s; effdet: no answer within 3 s')


def test_start_for__coco_weights(coco: Path) -> None:
    cfg = load('custom_coco')
    start = start_for(cfg, None)
    assert start is not None
    assert (start.kind, start.value) == ('coco', "COCO, Google's lite0")
    assert cfg.load_from == str(coco)
    assert cfg.model.backbone.pretrained is False
    assert weights_row(cfg, True, coco, start)[1:] == ("COCO, Google's lite0", str(coco))


def test_start_for__without_a_network_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_weights, 'coco_weights', refuse)
    monkeypatch.setattr(start_weights, 'has_package', lambda _: True)
    cfg = load('custom_coco')
    start = start_for(cfg, None)
    assert start is not None
    assert start.value == PACKAGE
    assert start.why.endswith(
        'COCO weights cannot be had (google: no answer within 3 s; effdet: no answer within 3 s)'
    )
    assert cfg.load_from is None
    assert cfg.model.backbone.pretrained == 'package'
    assert weights_row(cfg, False, Path(), start)[1:] == start[1:3]


def test_start_for__then_timms_then_random(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(start_weights, 'coco_weights', refuse)
    asked = []
    weights = {'conv_stem.weight': torch.zeros(1)}
    monkeypatch.setattr(pretrained, '_from_timm', lambda name: asked.append(name) or weights)
    for _ in range(2):
        cfg = load('custom_coco', network='d0')
        start = start_for(cfg, None)
        assert start is not None
        assert start.value == "ImageNet, timm's tf_efficientnet_b0.aa_in1k"
        assert torch.load(cfg.model.backbone.pretrained)['conv_stem.weight'] == 0
    assert asked == ['tf_efficientnet_b0.aa_in1k'], 'kept after the first time'
    monkeypatch.setattr(pretrained, '_from_timm', refuse)
    cfg = load('custom_coco', network='d1')
    start = start_for(cfg, None)
    assert start is not None
    assert (start.kind, start.value) == ('none', 'random')
    assert 'COCO weights cannot be had (google' in start.why
    assert 'ImageNet weights cannot be had (google' in start.why
    assert cfg.model.backbone.pretrained is False


@pytest.mark.parametrize('asked', ['coco', 'imagenet', 'd1'])
def test_start_for__what_is_asked_for_by_name_has_no_substitute(
    asked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(start_weights, 'coco_weights', refuse)
    monkeypatch.setattr(pretrained, '_from_timm', refuse)
    cfg = load('custom_coco', network='d1')
    before = cfg.to_dict()
    with pytest.raises(
        CheckpointError, match=f'--weights {asked}: cannot be had: .*google.*; check'
    ):
        start_for(cfg, asked)
    assert start_for(cfg, asked, network=False) is None
    assert cfg.to_dict() == before


def test_start_for__no_release_of_this_network() -> None:
    cfg = load('custom_coco', options={'model.neck.num_cells': 2})
    with pytest.raises(ConfigError, match='none of the released checkpoints'):
        start_for(cfg, 'coco')
    start = start_for(cfg, None)
    assert start is not None
    assert start.kind == 'imagenet'
    assert (
        'COCO weights cannot be had (none of the released checkpoints has this network)'
        in start.why
    )


@pytest.mark.parametrize(
    'options',
    [
        {'load_from': 'own.pth'},
        {'model.backbone.pretrained': True},
        {'model.backbone.pretrained': 'own.pth'},
        {'model.backbone.pretrained': False},
        {'model.backbone.init_cfg.checkpoint': 'own.pth'},
    ],
)
def test_start_for__a_persons_own_weights_stay(options: Options, coco: Path) -> None:
    cfg = load('custom_coco', options=options)
    before = cfg.to_dict()
    assert start_for(cfg, None, options) is None
    # The same in a config file.
    if options != {'model.backbone.pretrained': True}:
        assert start_for(cfg, None) is None
    assert cfg.to_dict() == before
    key = next(iter(options))
    with pytest.raises(ConfigError, match=f'give --weights or --cfg-options {key}, not both'):
        check_weights('coco', options)


def test_check_weights(tmp_path: Path) -> None:
    (tmp_path / 'run.index').touch()
    for asked in ('coco', 'imagenet', 'none', 'd3-640', 'https://host/x.pth', f'{tmp_path}/run'):
        check_weights(asked, ())
    for asked in ('COCO', 'absent.pth', ''):
        with pytest.raises(ConfigError, match=f'--weights {asked}: no such file; give coco'):
            check_weights(asked, ())


def test_train__from_coco_weights_then_resumed_and_alone(
    open_settings: TrainSettings, coco: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = {**dict(open_settings.cfg_options or {}), 'optim_wrapper.optimizer.lr': 0.0}
    still |= {'custom_hooks': [dict(type='LoadMatchingHook')]}
    settings = replace(open_settings, cfg_options=still)
    cfg = train(settings)
    assert cfg.load_from == str(coco)
    assert cfg.model.backbone.pretrained is False
    state = torch.load(run_dir / 'epoch_1.pth', weights_only=True)['state_dict']
    for name in ('backbone.model.conv_stem.weight', 'bbox_head.box_tower.predict.pointwise.weight'):
        assert bool((state[name] == 0.01).all())
    rows = state['bbox_head.cls_tower.predict.pointwise.weight'].unflatten(0, (9, 2))
    assert bool((rows[:, 1] == 0.01).all()), 'both know squares'
    assert not bool((rows[:, 0] == 0.01).any())
    # Without a network, and without the file: a run that continues keeps what it has started from.
    monkeypatch.setattr(start_weights, 'coco_weights', refuse)
    longer = replace(settings, cfg_options=still | {'train_cfg.max_epochs': 2}, resume='auto')
    prepared = prepare(longer)
    assert prepared.start is None
    assert prepared.cfg.load_from == str(coco)
    assert prepared.cfg.model.backbone.pretrained is False
    assert prepared.resumed is not None
    alone = TrainSettings(run_dir / 'lite0_coco.py', work_dir=run_dir.with_name('alone'))
    again = prepare(alone)
    assert again.start is None
    assert again.cfg.load_from == str(coco)
    row = weights_row(again.cfg, True, coco)
    assert row[1:] == (str(coco), 'load_from of the config')


def test_train__says_what_it_starts_from(
    open_settings: TrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(open_settings, weights='none'))
    assert re.search(r'weights +random \(as asked for', capsys.readouterr().out)


@pytest.mark.parametrize('asked', [None, 'coco', 'd0'])
def test_dry_run__downloads_nothing(
    open_settings: TrainSettings, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(OFFLINE)
    monkeypatch.setattr('effdet_plugin.convert.released.fetch', refuse)
    monkeypatch.setattr('effdet_plugin.convert.released.fetch_release', refuse)
    assert dry_run(replace(open_settings, weights=asked))['train_images'] == 4


def test_prepare__a_config_without_own_data_stays_as_it_is(
    open_settings: TrainSettings, options: Options, coco: Path
) -> None:
    given = {key: value for key, value in options.items() if 'pretrained' not in key}
    settings = replace(open_settings, data=None, cfg_options=given)
    prepared = prepare(settings)
    assert prepared.start is None
    assert prepared.cfg.load_from is None
    chosen = prepare(replace(settings, weights='coco'))
    assert chosen.cfg.load_from == str(coco)


def test_file__ours_as_it_is_and_others_converted(coco: Path, tmp_path: Path) -> None:
    cfg = load('custom_coco')
    assert start_for(cfg, str(coco)) == Start('file', str(coco), 'as asked for', str(coco))
    checkpoint = torch.load(coco, weights_only=True)
    checkpoint['meta']['dataset_meta']['classes'] = [f'{n}' for n in range(80)]
    torch.save(checkpoint, tmp_path / 'ours.pth')
    names = checkpoint['meta']['dataset_meta']['classes']
    convert(tmp_path / 'ours.pth', classes=names, to='effdet').save(tmp_path / 'theirs.pth')
    for _ in range(2):
        start = start_for(cfg, str(tmp_path / 'theirs.pth'))
        assert start is not None
        assert start.load_from != str(tmp_path / 'theirs.pth')
        found = torch.load(str(cfg.load_from), weights_only=True)['state_dict']
        assert found.keys() == checkpoint['state_dict'].keys()
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(CheckpointError, match=r'text\.pth'):
        start_for(cfg, str(tmp_path / 'text.pth'))


def test_check_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    check_agreement(None)
    start = Start('coco', '', '')
    check_agreement(start)
    monkeypatch.setattr(start_weights, 'all_gather_object', lambda kind: [kind, 'imagenet'])
    with pytest.raises(CheckpointError, match=r'different weights \(coco, imagenet\)'):
        check_agreement(start)


def test_plain_settings__weights(tmp_path: Path) -> None:
    assert plain_settings(data=tmp_path, weights='none').weights == 'none'


def test_start_for__random_takes_no_checkpoint_of_a_part() -> None:
    part = dict(type='Pretrained', checkpoint='resnet.pth')
    cfg = Config(dict(model=dict(type='FCOS', backbone=dict(type='ResNet', init_cfg=part))))
    start_for(cfg, 'none')
    assert cfg.model.backbone == dict(type='ResNet', init_cfg=None)
