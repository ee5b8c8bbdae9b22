"""What is wrong with the files that a config names is said before anything is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.training.annotation_files import check_annotation_files


@pytest.fixture
def cfg(data: Path, tmp_path: Path) -> Config:
    document = json.loads((data / 'train.json').read_text())
    (tmp_path / 'train.json').write_text(json.dumps(document))
    inner = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='train.json',
        data_prefix=dict(img=str(data)),
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
            r'gone\.png: the picture is',
        ),
        (lambda d: d['annotations'][1].update(category_id=5), 'annotation 1 is of category 5'),
        (lambda d: d['categories'].reverse(), r"write classes=\('square', 'circle'\)"),
        (lambda d: d.pop('images'), 'no "images"'),
        (lambda d: d.update(categories=[dict(id=3, name='a'), dict(id=7, name='b')]), 'a, b'),
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
    with pytest.raises(DatasetError, match=r'other\.json: there is no such annotation file'):
        check_annotation_files(cfg)


def test_check__broken_json(cfg: Config) -> None:
    (Path(_inner(cfg).data_root) / 'train.json').write_text('{"images": [')
    with pytest.raises(DatasetError, match='cannot be read as json'):
        check_annotation_files(cfg)


def test_check__head_of_fewer_classes(cfg: Config) -> None:
    cfg.model.bbox_head.num_classes = 1
    with pytest.raises(ConfigError, match='num_classes is 1, but the data set has 2'):
        check_annotation_files(cfg)


def test_check__classes_of_the_type(cfg: Config) -> None:
    """Without metainfo they are COCO's 80."""
    del _inner(cfg).metainfo
    with pytest.raises(DatasetError, match='none of the config'):
        check_annotation_files(cfg)


def test_check__remote_files_are_left_alone(cfg: Config) -> None:
    _inner(cfg).update(ann_file='s3://bucket/train.json')
    check_annotation_files(cfg)
