"""Other detectors with our backbone, neck, losses and assigner: train, resume, infer, load_from."""

from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import pytest
import torch

from effdet_plugin.inference import Detector
from effdet_plugin.training import TrainSettings, train
from support import REPOSITORY

IMAGES = REPOSITORY / 'tests' / 'data' / 'bccd_pair'
OURS = REPOSITORY / 'configs' / 'mix' / '_base_'
MMDET = Path(mmdet.__file__).parent / '.mim' / 'configs'
FOCAL: dict[str, Any] = dict(_delete_=True, type='SigmoidFocalLoss', use_sigmoid=True)
GIOU: dict[str, Any] = dict(_delete_=True, type='BoxIoULoss', mode='giou')
ASSIGNER: dict[str, Any] = dict(assigner=dict(_delete_=True, type='BatchMaxIoUAssigner'))
SMALL: dict[str, Any] = dict(in_channels=64, feat_channels=64, stacked_convs=1, num_classes=3)

# Detector -> base config, settings of its head and of its training, number of levels.
DETECTORS: dict[str, tuple[Path, dict[str, Any], dict[str, Any], int]] = {
    'retinanet': (
        OURS / 'retinanet.py',
        dict(loss_cls=FOCAL, loss_bbox=dict(_delete_=True, type='HuberLoss', loss_weight=12.5)),
        ASSIGNER,
        5,
    ),
    'fcos': (OURS / 'fcos.py', dict(loss_cls=FOCAL, loss_bbox=GIOU), {}, 5),
    'atss': (OURS / 'atss.py', dict(loss_cls=FOCAL, loss_bbox=GIOU), ASSIGNER, 5),
    'yolox': (
        MMDET / 'yolox' / 'yolox_tiny_8xb8-300e_coco.py',
        dict(loss_bbox=dict(**GIOU, reduction='sum', loss_weight=5.0)),
        {},
        3,
    ),
}


def data(pipeline: list[dict[str, Any]], times: int, **settings: Any) -> dict[str, Any]:
    dataset = dict(
        type='CocoDataset',
        data_root=str(IMAGES),
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
        pipeline=pipeline,
        **settings,
    )
    return dict(
        _delete_=True,
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='RepeatDataset', times=times, dataset=dataset) if times > 1 else dataset,
    )


def write_config(path: Path, name: str) -> None:
    base, head, training, levels = DETECTORS[name]
    load: list[dict[str, Any]] = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
    ]
    resize: dict[str, Any] = dict(type='Resize', scale=(128, 96), keep_ratio=True)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    val = data([*load, resize, dict(type='PackDetInputs', meta_keys=keys)], 1, test_mode=True)
    evaluator = dict(
        _delete_=True, type='CocoMetric', ann_file=f'{IMAGES}/annotations.json', metric='bbox'
    )
    backbone = dict(type='TimmBackbone', model_name='mobilenetv3_small_050', out_indices=(2, 3, 4))
    neck = dict(
        type='BiFPN', in_channels=[16, 24, 288], out_channels=64, num_outs=levels, num_cells=1
    )
    content: dict[str, Any] = dict(
        _base_=str(base),
        custom_imports=dict(imports=['effdet_plugin'], allow_failed_imports=False),
        model=dict(
            data_preprocessor=dict(batch_augments=None),
            backbone=dict(_delete_=True, **backbone),
            neck=neck | (dict(_delete_=True) if name in ('retinanet', 'yolox') else {}),
            bbox_head=SMALL | head,
            train_cfg=training,
            test_cfg=dict(score_thr=0.0),
        ),
        train_dataloader=data([*load, resize, dict(type='PackDetInputs')], 5),
        val_dataloader=val,
        test_dataloader=val,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_cfg=dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=9),
        param_scheduler=[],
        custom_hooks=[],
        default_hooks=dict(checkpoint=dict(_delete_=True, type='AtomicCheckpointHook')),
    )
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in content.items()) + '\n')


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)['state_dict']
    return state


@pytest.mark.parametrize('name', DETECTORS)
def test_other_detector__trains_resumes_infers_and_loads_its_own(name: str, tmp_path: Path) -> None:
    if not DETECTORS[name][0].is_file():
        pytest.skip('this mmdet has no configs')
    config, first = tmp_path / f'{name}.py', tmp_path / 'first'
    write_config(config, name)
    train(TrainSettings(config, work_dir=first))
    options: dict[str, Any] = {'train_cfg.max_epochs': 2}
    train(TrainSettings(config, work_dir=first, cfg_options=options, resume='auto'))
    before, after = weights_of(first / 'epoch_1.pth'), weights_of(first / 'epoch_2.pth')
    assert any(not torch.equal(value, after[key]) for key, value in before.items())

    found = Detector(config, first / 'epoch_2.pth')([IMAGES / 'BloodImage_00004.jpg'])[0]
    assert len(found.pred_instances) > 0
    assert np.isfinite(found.pred_instances.bboxes.numpy()).all()

    options = {'load_from': str(first / 'epoch_2.pth'), 'train_dataloader.dataset.times': 1}
    options |= {'optim_wrapper.optimizer.lr': 0.0}
    train(TrainSettings(config, work_dir=tmp_path / 'second', cfg_options=options))
    loaded = weights_of(tmp_path / 'second' / 'epoch_1.pth')
    assert all(torch.equal(loaded[key], after[key]) for key in after if key.endswith('weight'))
