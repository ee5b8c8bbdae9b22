"""Own data in a config: set everywhere, complete after a dump, written once and never into DIR."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.own_data import apply_data, dry_run_summary, set_num_classes
from support import shared_dir

PIPELINE = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True}]
LEAF = {
    'type': 'CocoDataset',
    'data_root': 'data/coco/',
    'ann_file': 'annotations/instances_train2017.json',
    'data_prefix': {'img': 'train2017/'},
    'pipeline': PIPELINE,
}
VOC_LEAF = {
    'type': 'VOCDataset',
    'data_root': 'data/VOCdevkit/',
    'ann_file': 'VOC2007/ImageSets/Main/train.txt',
    'data_prefix': {'sub_data_root': 'VOC2007/'},
    'filter_cfg': {'filter_empty_gt': False, 'min_size': 0, 'bbox_min_size': 32},
    'pipeline': PIPELINE,
}
WRAPPED = {
    'plain': LEAF,
    'ours': {'type': 'EfficientDetDataset', 'dataset': LEAF},
    'repeated': {'type': 'RepeatDataset', 'times': 1, 'dataset': LEAF},
    'two_sources': {'type': 'ConcatDataset', 'datasets': [LEAF, VOC_LEAF]},
    'nested': {
        'type': 'RepeatDataset',
        'times': 1,
        'dataset': {'type': 'ConcatDataset', 'datasets': [VOC_LEAF, VOC_LEAF]},
    },
}


@pytest.fixture(autouse=True)
def _mmdet_scope() -> None:
    init_default_scope('mmdet')


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five images in YOLO form, two boxes each and one without, of the classes a and b."""
    root = tmp_path / 'data'
    for number in range(5):
        path = root / f'images/{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (100, 50)).save(path)
        rows = '' if number == 4 else '0 0.5 0.5 0.4 0.4\n1 0.2 0.2 0.2 0.2\n'
        (root / 'labels').mkdir(exist_ok=True)
        (root / f'labels/{number}.txt').write_text(rows, encoding='utf-8')
    (root / 'classes.txt').write_text('a\nb\n', encoding='utf-8')
    return root


def _config(dataset: dict[str, Any] = LEAF) -> Config:
    return Config(
        {
            'model': {
                'backbone': {'type': 'X', 'num_classes': 1000},
                'bbox_head': {'type': 'Y', 'num_classes': 80, 'loss': {'num_classes': 80}},
                'roi_head': {'bbox_head': [{'num_classes': 80}, {'num_classes': 80}]},
            },
            'train_dataloader': {'batch_size': 8, 'drop_last': True, 'dataset': dataset},
            'val_dataloader': {'batch_size': 8, 'dataset': LEAF},
            'test_dataloader': {'batch_size': 8, 'dataset': LEAF},
            'val_evaluator': {'type': 'CocoMetric', 'ann_file': 'x.json'},
            'test_evaluator': [{'type': 'CocoMetric', 'ann_file': 'x.json'}, {'type': 'Other'}],
        }
    )


def _innermost(dataset: Any) -> Any:
    while hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        dataset = dataset.datasets[0] if hasattr(dataset, 'datasets') else dataset.dataset
    return dataset


@pytest.mark.parametrize('dataset', WRAPPED.values(), ids=WRAPPED.keys())
def test_apply_data__dumped_config_builds_the_data(
    dataset: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    cfg = _config(dataset)
    description = apply_data(cfg, data, tmp_path / 'run')
    cfg.dump(tmp_path / 'dumped.py')
    loaded = Config.fromfile(tmp_path / 'dumped.py')
    built = DATASETS.build(loaded.train_dataloader.dataset)
    inner = _innermost(built)
    assert len(built) == len(inner) == len(description.train)  # the negative is among them or val
    assert inner.metainfo['classes'] == ('a', 'b')
    boxes = sum(len(inner.get_data_info(index)['instances']) for index in range(len(inner)))
    assert boxes == description.train.num_targets
    assert inner[0]['img'].shape == (50, 100, 3)
    assert Path(inner.ann_file).is_absolute()


def test_apply_data__every_other_place_is_set(data: Path, tmp_path: Path) -> None:
    cfg = _config()
    apply_data(cfg, data, tmp_path / 'run')
    val = str(tmp_path / 'run/data/val.json')
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator[0].ann_file == val
    assert cfg.test_dataloader.dataset.ann_file == val
    assert cfg.model.bbox_head.num_classes == cfg.model.bbox_head.loss.num_classes == 2
    assert [head.num_classes for head in cfg.model.roi_head.bbox_head] == [2, 2]
    assert cfg.model.backbone.num_classes == 1000
    assert not cfg.train_dataloader.drop_last  # four images are fewer than a batch


def test_apply_data__negatives_stay_unless_the_config_says_otherwise(
    data: Path, tmp_path: Path
) -> None:
    cfg = _config()
    apply_data(cfg, data, tmp_path / 'run')
    assert not cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt
    cfg = _config(LEAF | {'filter_cfg': {'filter_empty_gt': True}})
    findings = apply_data(cfg, data, tmp_path / 'run').findings
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 3
    (filtered,) = (finding.message for finding in findings if finding.kind == 'filtered')
    assert 'filter_cfg' in filtered
    assert ' 1 ' in filtered
    with pytest.raises(DatasetError, match='min_size=99'):
        apply_data(_config(LEAF | {'filter_cfg': {'min_size': 99}}), data, tmp_path / 'run')


def test_apply_data__writes_once_and_only_below_the_work_dir(data: Path, tmp_path: Path) -> None:
    before = sorted(path for path in data.rglob('*'))
    first = apply_data(_config(), data, tmp_path / 'run')
    assert sorted(path for path in data.rglob('*')) == before
    train = tmp_path / 'run/data/train.json'
    stamp = train.stat().st_mtime_ns, train.stat().st_ino
    second = apply_data(_config(), data, tmp_path / 'run')
    assert (train.stat().st_mtime_ns, train.stat().st_ino) == stamp
    assert first.remarks() == second.remarks()
    assert 'converted' in [finding.kind for finding in first.findings]
    assert sorted(path.name for path in train.parent.iterdir()) == ['train.json', 'val.json']


def test_apply_data__work_dir_below_the_data(data: Path) -> None:
    first = apply_data(_config(), data, data / 'work_dirs/run')
    second = apply_data(_config(), data, data / 'work_dirs/run')
    assert (second.source, second.remarks()) == (first.source, first.remarks())


def test_apply_data__write_false_writes_nothing(data: Path, tmp_path: Path) -> None:
    cfg = _config()
    apply_data(cfg, data, tmp_path / 'run', write=False)
    assert not (tmp_path / 'run').exists()
    assert cfg.train_dataloader.dataset.ann_file == str(tmp_path / 'run/data/train.json')


def test_apply_data__errors_change_no_config(data: Path, tmp_path: Path) -> None:
    (data / 'labels/1.txt').write_text('0 0.5 nan 0.1 0.1', encoding='utf-8')
    cfg = _config()
    with pytest.raises(DatasetError, match=r'labels/1.txt, line 1'):
        apply_data(cfg, data, tmp_path / 'run')
    assert cfg.model.bbox_head.num_classes == 80
    assert not (tmp_path / 'run').exists()


def test_apply_data__a_mask_head_is_refused(data: Path, tmp_path: Path) -> None:
    cfg = _config()
    cfg.model.roi_head = {'mask_head': {'type': 'Z'}}
    with pytest.raises(ConfigError, match=r'--data.*mask'):
        apply_data(cfg, data, tmp_path / 'work')


def test_dry_run_summary__counts_both_splits(data: Path, tmp_path: Path) -> None:
    description = apply_data(_config(), data, tmp_path / 'run', write=False)
    summary = json.loads(json.dumps(dry_run_summary(description, ['more'])))
    assert summary['classes'] == ['a', 'b']
    assert summary['train_images'] + summary['val_images'] == 5
    assert summary['val_images'] == 1
    assert summary['boxes'] == 8
    assert summary['remarks'][-1] == 'more'
    assert 'split_made' in [finding.kind for finding in description.findings]
    assert summary['remarks'][:-1] == description.remarks()


def test_set_num_classes__model_without_heads() -> None:
    cfg = Config({'num_classes': 80})
    set_num_classes(cfg, 3)
    assert cfg.num_classes == 3


def _boxes_by_file(description: Any) -> dict[str, Any]:
    names = np.array(description.classes)
    return {
        image.path.name: sorted(zip(names[image.labels], image.boxes.tolist(), strict=True))
        for split in description.splits.values()
        for image in split
    }


def test_bccd__voc_tree_and_coco_json_give_the_same_boxes(tmp_path: Path) -> None:
    shared = shared_dir()
    source = shared / 'data/bccd' if shared else Path('absent')
    if not source.is_dir():
        pytest.skip('the BCCD sample is not here')
    for name in ('Annotations', 'ImageSets', 'JPEGImages'):
        (tmp_path / 'voc').mkdir(exist_ok=True)
        (tmp_path / 'voc' / name).symlink_to(source / name)
    from_voc = apply_data(_config(), tmp_path / 'voc', tmp_path / 'run', write=False)
    from_coco = apply_data(_config(), source, tmp_path / 'run', write=False)
    assert (from_voc.source, from_coco.source) == ('Pascal VOC', 'COCO')
    assert [len(split) for split in from_voc.splits.values() if split] == [205, 87, 72]
    assert [len(split) for split in from_coco.splits.values() if split] == [205, 87, 72]
    assert _boxes_by_file(from_voc) == _boxes_by_file(from_coco)
