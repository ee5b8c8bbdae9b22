"""A config is checked before anything is built: types, keys, and sizes that reach nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmdet
import pytest
from mmengine.config import Config

from effdet_plugin.config import check, load, set_image_size
from effdet_plugin.config.schema import TOP_LEVEL_KEYS, dicts_below
from effdet_plugin.errors import ConfigError
from support import REPOSITORY

MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
RETINANET = MMDET_CONFIGS / 'retinanet' / 'retinanet_r50_fpn_1x_coco.py'
# One of each manner of writing configs. All 823 of mmdet 3.3.0 were tried: 798 pass; 15 cannot be
# loaded and 8 not checked without mmpretrain, or lack a file; 2 name a metric that mmdet has not.
GOOD = [
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'retinanet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_20e_coco.py',
    'dcnv2/mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
    'vfnet/vfnet_r50_fpn_1x_coco.py',
    'atss/atss_r50_fpn_1x_coco.py',
    'ssd/ssd300_coco.py',
    'yolox/yolox_s_8xb8-300e_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'detr/detr_r50_8xb2-150e_coco.py',
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'albu_example/mask-rcnn_r50_fpn_albu-1x_coco.py',
    'fpg/retinanet_r50_fpg_crop640_50e_coco.py',
    'carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py',
    'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
    'common/lsj-200e_coco-detection.py',
    'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py',
]


@pytest.mark.parametrize('name', GOOD)
def test_check__no_false_alarm_on_mmdets_own(name: str) -> None:
    path = MMDET_CONFIGS / name
    if not path.is_file():
        pytest.skip(f'this mmdet has no {name}')
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        pytest.skip(str(error))
    check(cfg)


@pytest.fixture
def cfg() -> Config:
    cfg = Config.fromfile(RETINANET)
    cfg.custom_hooks = [
        dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=2e-4, gamma=4, priority=49)
    ]
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0, custom_keys=dict(x=dict(lr_mult=2)))
    return cfg


def _pipeline(cfg: Config) -> Any:
    return cfg.train_dataloader.dataset.pipeline


WRONG: dict[str, tuple[Callable[[Config], Any], str, str]] = {
    'key of a neck': (lambda c: c.model.neck.update(num_outz=5), 'model.neck.num_outz', 'num_outs'),
    'type of a neck': (lambda c: c.model.neck.update(type='FPNN'), 'model.neck.type', "'FPN'"),
    'wrong kind': (lambda c: c.model.neck.update(type='SGD'), 'model.neck.type', 'SGD'),
    'hidden by kwargs': (
        lambda c: c.model.bbox_head.update(feat_chanels=1),
        'model.bbox_head.feat_chanels',
        "'feat_channels'",
    ),
    'task util': (
        lambda c: c.model.train_cfg.assigner.update(pos_iou=0.5),
        'model.train_cfg.assigner.pos_iou',
        "'pos_iou_thr'",
    ),
    'nms function': (
        lambda c: c.model.test_cfg.nms.update(iou_treshold=0.5),
        'model.test_cfg.nms.iou_treshold',
        "'iou_threshold'",
    ),
    'initializer': (
        lambda c: c.model.backbone.init_cfg.update(checkpont='x'),
        'model.backbone.init_cfg.checkpont',
        "'checkpoint'",
    ),
    'transform type': (
        lambda c: _pipeline(c)[2].update(type='Rezise'),
        'train_dataloader.dataset.pipeline.2.type',
        "'Resize'",
    ),
    'transform key': (
        lambda c: _pipeline(c)[2].update(keep_ration=True),
        'train_dataloader.dataset.pipeline.2.keep_ration',
        "'keep_ratio'",
    ),
    'transform without type': (
        lambda c: _pipeline(c).append(dict(prob=1)),
        'train_dataloader.dataset.pipeline.5',
        'type',
    ),
    'dataset': (
        lambda c: c.val_dataloader.dataset.update(anfile='x'),
        'val_dataloader.dataset.anfile',
        "'ann_file'",
    ),
    'loader': (
        lambda c: c.train_dataloader.update(batchsize=2),
        'train_dataloader.batchsize',
        "'batch_size'",
    ),
    'sampler': (
        lambda c: c.train_dataloader.sampler.update(shufle=True),
        'train_dataloader.sampler.shufle',
        "'shuffle'",
    ),
    'optimizer': (
        lambda c: c.optim_wrapper.optimizer.update(momentun=0.9),
        'optim_wrapper.optimizer.momentun',
        "'momentum'",
    ),
    'paramwise': (
        lambda c: c.optim_wrapper.paramwise_cfg.update(bias_decay_mul=0),
        'optim_wrapper.paramwise_cfg.bias_decay_mul',
        "'bias_decay_mult'",
    ),
    'scheduler': (
        lambda c: c.param_scheduler[0].update(strt_factor=1),
        'param_scheduler.0.strt_factor',
        "'start_factor'",
    ),
    'loop': (lambda c: c.train_cfg.update(max_epoch=1), 'train_cfg.max_epoch', "'max_epochs'"),
    'metric': (
        lambda c: c.val_evaluator.update(clasewise=True),
        'val_evaluator.clasewise',
        "'classwise'",
    ),
    'hook': (
        lambda c: c.default_hooks.checkpoint.update(intervall=1),
        'default_hooks.checkpoint.intervall',
        "'interval'",
    ),
    'name of a hook': (
        lambda c: c.default_hooks.update(chekpoint=dict(interval=2)),
        'default_hooks.chekpoint',
        "'checkpoint'",
    ),
    'average behind EMAHook': (
        lambda c: c.custom_hooks[0].update(gama=3),
        'custom_hooks.0.gama',
        "'gamma'",
    ),
    'type of the average': (
        lambda c: c.custom_hooks[0].update(ema_type='ExpMomentEMA'),
        'custom_hooks.0.ema_type',
        "'ExpMomentumEMA'",
    ),
    'randomness': (
        lambda c: c.update(randomness=dict(sed=1)),
        'randomness.sed',
        "'seed'",
    ),
    'top level': (
        lambda c: c.update(param_schedulers=[]),
        'param_schedulers',
        "'param_scheduler'",
    ),
    'runner': (
        lambda c: c.update(runner_type='EfficientDetRuner'),
        'runner_type',
        "'EfficientDetRunner'",
    ),
    'own part that nobody imported': (
        lambda c: c.model.neck.update(type='MaxFusion'),
        'model.neck.type',
        'registered; is its file in custom_imports?',
    ),
    'misspelt own part': (
        lambda c: c.model.neck.update(type='MaxFusoin'),
        'model.neck.type',
        'registered; is its file in custom_imports?',
    ),
    'type with a letter wrong': (
        lambda c: c.model.neck.update(type='BiFPM'),
        'model.neck.type',
        "did you mean 'BiFPN'?",
    ),
    'part of the name of a type': (
        lambda c: _pipeline(c)[3].update(type='Flip'),
        'train_dataloader.dataset.pipeline.3.type',
        "did you mean 'RandomFlip'?",
    ),
    'package that is missing': (
        lambda c: c.model.neck.update(type='nopackage.FPN'),
        'model.neck.type',
        'nopackage is not installed',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_check__names_the_place_and_the_nearest(cfg: Config, case: str) -> None:
    change, path, hint = WRONG[case]
    check(cfg)
    change(cfg)
    with pytest.raises(ConfigError) as error:
        check(cfg)
    message = str(error.value)
    assert message.startswith(f'{path}:')
    assert hint in message
    assert '\n' not in message


def test_check__size_that_reaches_nothing(cfg: Config) -> None:
    cfg.image_size = (256, 256)
    cfg.val_dataloader.dataset.pipeline[1] = dict(type='Resize', scale=(1, 1))
    check(cfg)  # no other size anywhere: a variable of the author's
    cfg.model.backbone = dict(type='ResNet', depth=50)
    cfg.dataset_table = dict(image_size=(512, 512))
    with pytest.raises(
        ConfigError, match=r'image_size: \(256, 256\).*dataset_table\.image_size.*--image-size'
    ):
        check(cfg)
    set_image_size(cfg, 256)
    check(cfg)


def misspellings(key: str) -> Iterator[str]:
    """A letter dropped, doubled, swapped with the one before; a plural; no underscores."""
    middle = len(key) // 2
    yield key[:middle] + key[middle + 1 :]
    yield key[:middle] + key[middle] + key[middle:]
    yield key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]
    yield key[:-1] if key.endswith('s') else f'{key}s'
    yield key.replace('_', '')


@pytest.mark.parametrize('name', ['efficientdet/d0_coco', 'mix/mask-rcnn_r18_bifpn_coco'])
def test_check__names_every_misspelt_key_of_ours(name: str) -> None:
    cfg = load(REPOSITORY / 'configs' / f'{name}.py')
    # A section alone is checked sooner; those for testing are the ones for validation.
    sections = TOP_LEVEL_KEYS & cfg.keys() - {'test_dataloader', 'test_evaluator', 'image_size'}
    parts = [Config({section: cfg[section]}) for section in sorted(sections)]
    places = [
        (part, place, node, key)
        for part in parts
        for place, node in dicts_below(part)
        for key in list(node)
        if not place.endswith('custom_keys')  # regular expressions of the author's
    ]
    assert len(places) > 120
    for part, place, node, key in places:
        for wrong in {*misspellings(key)} - {*node, 'l'}:  # 'l' for 'lr' is near nothing
            node[wrong] = node.pop(key)
            with pytest.raises(ConfigError) as error:
                check(part)
            node[key] = node.pop(wrong)
            message = str(error.value)
            assert message.startswith(place)
            assert repr(key) in message or (key == 'type' and 'type' in message)


@pytest.mark.parametrize('key', ['ann_file', 'proposal_file'])
@pytest.mark.parametrize('end', ['pkl', 'pickle', 'YAML', 'yml'])
def test_check__files_that_run_code_when_they_are_read(key: str, end: str) -> None:
    dataset = {'type': 'CocoDataset', key: f'x.{end}'}
    cfg = Config({'train_dataloader': {'dataset': {'type': 'RepeatDataset', 'dataset': dataset}}})
    with pytest.raises(ConfigError, match=rf'dataset\.{key}: .*may run any code.*\.json'):
        check(cfg)
