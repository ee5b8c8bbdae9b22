"""What is wrong with the files that a config names is said before anything is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layout_builder import coco, dump, save_images
from mmengine.config import Config

from effdet_plugin.convert.coco_ids import SLOT_NAMES
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.own_data import check_annotation_files


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    names = [f'{number}.png' for number in range(4)]
    save_images(tmp_path / 'images', names)
    dump(tmp_path / 'train.json', coco(names, first_category=3))
    inner = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='train.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('circle', 'square')),
    )
    wrapped = dict(type='EfficientDetDataset', dataset=dict(type='ConcatDataset', datasets=[inner]))
    return Config(
        dict(
            model=dict(bbox_head=dict(num_classes=2)),
            train_dataloader=dict(dataset=wrapped),
            val_dataloader=None,
        )
    )


def _inner(cfg: Config) -> Any:
    return cfg.train_dataloader.dataset.dataset.datasets[0]


def _change_file(cfg: Config, change: Callable[[dict[str, Any]], Any]) -> None:
    path = Path(_inner(cfg).data_root) / 'train.json'
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_check__accepts(cfg: Config) -> None:
    check_annotation_files(cfg)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            lambda d: d['images'][2].update(file_name='gone.png'),
            r'gone\.png.*\b1 of the 4 .*train\.json',
        ),
        (lambda d: d['annotations'][1].update(category_id=5), '1002.* 5'),
        (lambda d: d['categories'].reverse(), r"classes=\('square', 'circle'\).*--data"),
        (lambda d: d.pop('images'), r'train\.json.*"images"'),
        (
            lambda d: d.update(categories=[dict(id=3, name='a'), dict(id=7, name='b')]),
            r'a, b.*metainfo\.classes.*--data',
        ),
    ],
)
def test_check__refuses_a_file(
    cfg: Config, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    _change_file(cfg, change)
    with pytest.raises(DatasetError, match=words) as error:
        check_annotation_files(cfg)
    assert '\n' not in str(error.value)


def test_check__file_that_is_not_there(cfg: Config) -> None:
    _inner(cfg).ann_file = 'other.json'
    with pytest.raises(DatasetError, match=r'other\.json.*data_root.*ann_file.*--data'):
        check_annotation_files(cfg)


def test_check__broken_json(cfg: Config) -> None:
    (Path(_inner(cfg).data_root) / 'train.json').write_text('{"images": [')
    with pytest.raises(DatasetError, match=r'train\.json.*line 1'):
        check_annotation_files(cfg)


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (('line', 'circle', 'square'), "'circle'.*label 0.*classes=.'circle', 'squ"),
        (('circle', 'line', 'square'), "'square'.*label 1.*num_classes=2"),
    ],
)
def test_check__class_before_those_of_the_file(
    cfg: Config, classes: tuple[str, ...], words: str
) -> None:
    """It would shift their labels."""
    _inner(cfg).metainfo.classes = classes
    cfg.model.bbox_head.num_classes = 3
    with pytest.raises(DatasetError, match=words) as error:
        check_annotation_files(cfg)
    assert '\n' not in str(error.value)


def test_check__class_behind_those_of_the_file(cfg: Config) -> None:
    _inner(cfg).metainfo.classes = ('circle', 'square', 'line')
    cfg.model.bbox_head.num_classes = 3
    check_annotation_files(cfg)


def test_check__two_of_cocos_classes(cfg: Config) -> None:
    """With the 80 names of the type, car would be trained as bicycle."""
    _change_file(
        cfg, lambda d: d.update(categories=[dict(id=3, name='person'), dict(id=4, name='car')])
    )
    del _inner(cfg).metainfo
    cfg.model.bbox_head.num_classes = 80
    with pytest.raises(DatasetError, match=r"'car'.*label 1.*classes=\('person', 'car'\)"):
        check_annotation_files(cfg)


def test_check__evaluation_finds_classes_by_name(cfg: Config) -> None:
    cfg.val_dataloader = cfg.pop('train_dataloader')
    source = cfg.val_dataloader.dataset.dataset.datasets[0]
    source.metainfo.classes = SLOT_NAMES
    path = Path(source.data_root) / 'train.json'
    path.write_text(path.read_text().replace('"circle"', '"toothbrush"').replace('square', 'car'))
    cfg.model.bbox_head.num_classes = 90
    check_annotation_files(cfg)


@pytest.mark.parametrize('count', [1, 80, 90])
def test_check__head_of_other_classes(cfg: Config, count: int) -> None:
    cfg.model.bbox_head.num_classes = count
    with pytest.raises(ConfigError, match=rf'model\.bbox_head\.num_classes.*\b{count}\b.*\b2\b'):
        check_annotation_files(cfg)


def test_check__second_stage_of_other_classes(cfg: Config) -> None:
    cfg.model = dict(roi_head=dict(bbox_head=dict(num_classes=80)))
    with pytest.raises(ConfigError, match=r'model\.roi_head\.bbox_head\.num_classes.*80.*\b2\b'):
        check_annotation_files(cfg)


@pytest.mark.parametrize('head', [None, dict(type='DETRHead'), [dict(num_classes=80)]])
def test_check__heads_that_do_not_say_how_many_classes(cfg: Config, head: Any) -> None:
    cfg.model.bbox_head = head
    check_annotation_files(cfg)


def test_check__classes_of_the_type(cfg: Config) -> None:
    """Without metainfo they are COCO's 80."""
    del _inner(cfg).metainfo
    with pytest.raises(DatasetError, match=r'circle, square.*person.*metainfo\.classes'):
        check_annotation_files(cfg)


def test_check__remote_files_are_left_alone(cfg: Config) -> None:
    _inner(cfg).update(ann_file='s3://bucket/train.json')
    check_annotation_files(cfg)
