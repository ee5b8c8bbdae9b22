"""The VOC 2012 config: from a COCO checkpoint, frozen, on a dataset of VOC's own tree."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset, VOCDataset
from mmdet.registry import HOOKS, MODELS
from mmengine.registry import init_default_scope

from effdet_plugin.config import load
from effdet_plugin.training import TrainSettings, train
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'd0_voc2012.py'
COCO = REPOSITORY / 'configs' / 'efficientdet' / 'd0_coco.py'
BOX = '<xmin>10</xmin><ymin>12</ymin><xmax>50</xmax><ymax>60</ymax>'
SMALL = {
    'train_dataloader.batch_size': 2,
    'model.neck.num_cells': 1,
    'model.bbox_head.stacked_convs': 1,
    'model.backbone.pretrained': False,
    'train_cfg.max_epochs': 1,
    **{
        f'{loader}.{key}': value
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
        for key, value in (('num_workers', 0), ('persistent_workers', False))
    },
}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A ``VOCdevkit`` of two training and one validation image, each with a person."""
    year = tmp_path / 'VOCdevkit' / 'VOC2012'
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (year / folder).mkdir(parents=True)
    for name in ('a', 'b', 'c'):
        image = np.random.default_rng(ord(name)).integers(0, 256, (80, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(year / 'JPEGImages' / f'{name}.jpg'), image)
        (year / 'Annotations' / f'{name}.xml').write_text(
            f'<annotation><filename>{name}.jpg</filename><size><width>100</width><height>80</height>'
            f'</size><object><name>person</name><difficult>0</difficult><bndbox>{BOX}</bndbox>'
            '</object></annotation>'
        )
    (year / 'ImageSets' / 'Main' / 'train.txt').write_text('a\nb\n')
    (year / 'ImageSets' / 'Main' / 'val.txt').write_text('c\n')
    return tmp_path / 'VOCdevkit'


@pytest.fixture
def options(voc: Path) -> dict[str, Any]:
    """A small network on the small dataset, from no checkpoint."""
    roots = {
        f'{loader}.dataset.dataset.data_root': f'{voc}/'
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    }
    return SMALL | roots | {'load_from': None}


def early_stopping(options: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The place of the hook in the config, and the hook."""
    hooks = load(CONFIG, options=options).custom_hooks
    return next((i, hook) for i, hook in enumerate(hooks) if hook.type == 'EarlyStoppingHook')


def test_voc2012__trains_the_head_only_from_coco(options: dict[str, Any], tmp_path: Path) -> None:
    init_default_scope('mmdet')
    small_model = {key: value for key, value in SMALL.items() if key.startswith('model')}
    coco = MODELS.build(load(COCO, options=small_model).model)
    meta = dict(dataset_meta=dict(classes=CocoDataset.METAINFO['classes']))
    torch.save(dict(meta=meta, state_dict=coco.state_dict()), tmp_path / 'coco.pth')
    options |= {'load_from': str(tmp_path / 'coco.pth')}
    train(TrainSettings(CONFIG, work_dir=tmp_path / 'run', image_size=128, cfg_options=options))

    checkpoint = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)
    assert checkpoint['meta']['dataset_meta']['classes'] == VOCDataset.METAINFO['classes']
    trained, before = checkpoint['state_dict'], coco.state_dict()
    frozen = [name for name in before if name.startswith(('backbone', 'neck'))]
    assert not [name for name in frozen if not torch.equal(trained[name], before[name])]
    name = 'bbox_head.cls_tower.predict.pointwise.bias'
    assert trained[name].shape == (9 * 20,)
    assert list((tmp_path / 'run').glob('best_*.pth'))


@pytest.mark.timeout(600)
def test_voc2012__stops_when_nothing_improves(options: dict[str, Any], tmp_path: Path) -> None:
    place, _ = early_stopping(options)
    options |= {
        'optim_wrapper.optimizer.lr': 0.0,
        'train_cfg.max_epochs': 12,
        f'custom_hooks.{place}.patience': 2,
    }
    train(
        TrainSettings(
            CONFIG, work_dir=tmp_path / 'run', seed=0, image_size=128, cfg_options=options
        )
    )
    epochs = [int(path.stem.split('_')[-1]) for path in (tmp_path / 'run').glob('epoch_*.pth')]
    (best,) = (tmp_path / 'run').glob('best_*.pth')
    assert max(epochs) == int(best.stem.split('_')[-1]) + 2 < 12


@pytest.mark.parametrize(('step', 'stops'), [(0.003, False), (0.0001, True)])
def test_voc2012__small_gains_are_gains(options: dict[str, Any], step: float, stops: bool) -> None:
    hook = HOOKS.build(early_stopping(options)[1])
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(stop_training=False), logger=logging.getLogger('test')
    )
    for epoch in range(10):
        hook.after_val_epoch(runner, {'pascal_voc/mAP': 0.3 + step * epoch})
    assert runner.train_loop.stop_training is stops
