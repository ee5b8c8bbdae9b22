"""A config file and its options become a checked config, or one line that says why not."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from effdet_plugin.config import load, merge_options, parse_options
from effdet_plugin.errors import ConfigError
from support import REPOSITORY

TEXT = """
image_size = (64, 64)
model = dict(type='RetinaNet', neck=dict(type='FPN', in_channels=[1], out_channels=4, num_outs=5))
val_dataloader = dict(batch_size=1, dataset=dict(
    type='CocoDataset', ann_file='x.json', pipeline=[dict(type='LoadImageFromFile')]))
sizes = dict(image_size=image_size)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'retinanet.py'
    path.write_text(TEXT, encoding='utf-8')
    return path


def test_load__size_and_options(path: Path) -> None:
    cfg = load(path, image_size='96x32', options=['model.neck.num_outs=4'])
    assert cfg.image_size == cfg.sizes.image_size == (32, 96)
    assert cfg.model.neck.num_outs == 4


def test_load__option_makes_a_wrong_node(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.neck\.type.*did you mean 'FPN'"):
        load(path, options={'model.neck.type': 'FPNN'})


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('model = dict(', 'SyntaxError'),
        ('model = dict(type=undefined)', 'NameError'),
        ("custom_imports = dict(imports=['no_such_package_here'])", 'no_such_package_here'),
        ("_base_ = ['missing.py']", 'missing.py'),
    ],
)
def test_load__broken_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / 'broken.py'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(ConfigError, match=words) as error:
        load(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('own_fusoin', "own_fusoin: No module named 'own_fusoin'; .*PYTHONPATH"),
        ('own_fusion', "own_fusion: No module named 'no_such_thing'; .*PYTHONPATH"),
        ('own_word', "own_word: cannot import name 'x' from 'pathlib'"),
    ],
)
def test_load__custom_import_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    (tmp_path / 'own_fusion.py').write_text('import no_such_thing', encoding='utf-8')
    (tmp_path / 'own_word.py').write_text('from pathlib import x', encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / 'own.py'
    path.write_text(f"custom_imports = dict(imports=['{name}'], allow_failed_imports=False)")
    with pytest.raises(ConfigError, match=reason) as error:
        load(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


def test_load__missing_file_names_the_nearest(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'retinanet\.py'"):
        load(path.with_name('retinant.py'))


@pytest.fixture
def cfg() -> Config:
    return Config(
        dict(
            image_size=(512, 512),
            model=dict(
                type='RetinaNet',
                backbone=dict(type='ResNet', depth=50, init_cfg=None),
                neck=dict(type='FPN', in_channels=[1], out_channels=4, num_outs=5),
                test_cfg=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5)),
            ),
            train_dataloader=dict(
                batch_size=2,
                dataset=dict(
                    type='CocoDataset', pipeline=[dict(type='RandomFlip', prob=0.5)], metainfo={}
                ),
            ),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='SGD', lr=0.1),
                paramwise_cfg=dict(custom_keys={}),
            ),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=50)),
        )
    )


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('a.b=1', 1),
        ('a.b=1e-3', 1e-3),
        ('a.b=True', True),
        ('a.b=None', None),
        ('a.b=text', 'text'),
        ('a.b=x=y', 'x=y'),
        ('a.b=[1,2]', [1, 2]),
        ('a.b=(1,[2,3])', (1, [2, 3])),
        ('a.b=1,2', [1, 2]),
    ],
)
def test_parse_options(option: str, value: Any) -> None:
    assert parse_options([option]) == {'a.b': value}


@pytest.mark.parametrize('option', ['novalue', '=3', 'a=[1,2'])
def test_parse_options__refuses(option: str) -> None:
    with pytest.raises(ConfigError, match='--cfg-options'):
        parse_options([option])


@pytest.mark.parametrize(
    'option',
    [
        'model.neck.num_outs=6',
        'model.neck.norm_cfg.type=BN',  # not there, but the constructor takes it
        'model.backbone.init_cfg.type=Pretrained',  # switched off, switched on again
        'model.test_cfg.nms.type=soft_nms',
        'train_dataloader.num_workers=2',  # an argument of the loader
        'train_dataloader.dataset.pipeline.0.prob=0',
        'train_dataloader.dataset.metainfo.classes=(a,b)',  # names of the author's
        'optim_wrapper.optimizer.momentum=0.9',
        'optim_wrapper.paramwise_cfg.custom_keys.neck.lr_mult=0.1',
        'randomness.seed=3',  # a section that is not there
        'load_from=x.pth',
        'default_hooks.checkpoint.type=CheckpointHook',
    ],
)
def test_merge_options__accepts(cfg: Config, option: str) -> None:
    merge_options(cfg, [option])
    path, value = next(iter(parse_options([option]).items()))
    node: Any = cfg
    for key in path.split('.'):
        node = node[int(key)] if key.isdigit() else node[key]
    assert node == value


@pytest.mark.parametrize(
    ('option', 'hint'),
    [
        ('model.neck.num_ouz=6', "'num_outs'"),
        ('model.nek.num_outs=6', "'neck'"),
        ('modl.neck.num_outs=6', "'model'"),
        ('model.neck.num_outs.x=6', 'has no keys'),
        ('model.test_cfg.scor_thr=0.1', "'score_thr'"),
        ('train_dataloader.batch=4', "'batch_size'"),
        ('train_dataloader.dataset.pipeline.3.prob=0', 'list of 1'),
        ('train_dataloader.dataset.pipeline.x.prob=0', 'list of 1'),
        ('optim_wrapper.optimizer.rl=0.1', "'lr'"),
        ('optim_wrapper.paramwise_cfg.norm_decay=0', "'norm_decay_mult'"),
        ('randomness_seed=3', "'randomness'"),
        ('default_hooks.chekpoint.interval=3', "'checkpoint'"),
    ],
)
def test_merge_options__names_the_nearest(cfg: Config, option: str, hint: str) -> None:
    before = cfg.to_dict()
    with pytest.raises(ConfigError, match='--cfg-options') as error:
        merge_options(cfg, [option])
    assert hint in str(error.value)
    assert '\n' not in str(error.value)
    assert cfg.to_dict() == before


def test_merge_options__several_below_a_new_place(cfg: Config) -> None:
    merge_options(
        cfg, ['model.backbone.init_cfg.checkpoint=x.pth', 'model.backbone.init_cfg.type=Pretrained']
    )
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='x.pth')


def test_merge_options__replaces(cfg: Config) -> None:
    merge_options(cfg, ['model.neck._delete_=True', 'model.neck.type=ChannelMapper'])
    assert cfg.model.neck == dict(type='ChannelMapper')


def test_merge_options__that_contradict(cfg: Config) -> None:
    with pytest.raises(ConfigError, match='--cfg-options'):
        merge_options(cfg, {'model.neck': 5, 'model.neck.num_outs': 4})


def test_merge_options__image_size_goes_everywhere(cfg: Config) -> None:
    cfg.train_dataloader.dataset.image_size = (512, 512)
    merge_options(cfg, ['image_size=(128,192)'])
    assert cfg.image_size == cfg.train_dataloader.dataset.image_size == (128, 192)


@pytest.mark.parametrize(
    ('option', 'remedy'),
    [
        ('data_root=/data/', 'set train_dataloader.dataset.dataset.data_root, val_dataloader'),
        ('train_pipeline.0.x=1', 'set the values where it went'),
    ],
)
def test_merge_options__a_variable_of_the_file_is_refused(option: str, remedy: str) -> None:
    cfg = load(REPOSITORY / 'configs' / 'efficientdet' / 'd0_coco.py')
    path = option.partition('=')[0]
    with pytest.raises(ConfigError, match=f'{path}: {path.split(".")[0]} ') as error:
        merge_options(cfg, [option])
    assert remedy in str(error.value)
