"""What is wrong with the files that a config names is said before anything is built."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layout_builder import coco, dump, save_images
from mmdet.registry import DATASETS
from mmengine.config import Config

from effdet_plugin.convert.coco_ids import SLOT_NAMES
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.own_data import check_annotation_files
from support import shared_dir


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
    (remark,) = check_annotation_files(cfg).remarks
    assert "class 'line' of the config is not in the file" in remark


@pytest.mark.parametrize('name', ['Square', 'squares', 'square ', 'squaree', 'sq-uare'])
def test_check__class_that_is_misspelt(cfg: Config, name: str) -> None:
    """Its boxes would be passed over."""
    _inner(cfg).metainfo.classes = ('circle', name)
    with pytest.raises(DatasetError, match=f"'square'.*not {name!r}") as error:
        check_annotation_files(cfg)
    assert '\n' not in str(error.value)


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


def _targets(cfg: Config) -> tuple[int, list[str]]:
    """Number of targets that mmdet finds after the check, and the remarks."""
    checked = check_annotation_files(cfg)
    checked.write()
    dataset = DATASETS.build({**_inner(cfg), 'pipeline': []})
    instances = (dataset.get_data_info(number)['instances'] for number in range(len(dataset)))
    return sum(len(found) for found in instances), checked.remarks


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda d: [annotation.pop(key) for annotation in d['annotations']]


def _with(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda d: [annotation.update(changes) for annotation in d['annotations']]


@pytest.mark.parametrize(
    'change',
    [
        _with(area=0),
        _with(area=None),
        _with(area='480'),
        _with(area=float('nan')),
        _with(iscrowd=None),
        _with(id=7),
        _without('area'),
        _without('iscrowd'),
        _without('id'),
        lambda d: [one.update(category_id=str(one['category_id'])) for one in d['annotations']],
        lambda d: [one.update(bbox=list(map(str, one['bbox']))) for one in d['annotations']],
        lambda d: [one.update(width=0, height=None) for one in d['images']],
        lambda d: [one.pop('width') for one in d['images']],
    ],
)
def test_check__all_boxes_are_found_whatever_the_form(
    cfg: Config, change: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    cfg.work_dir = str(tmp_path / 'work')
    cfg.val_evaluator = dict(ann_file=f'{tmp_path}/train.json')
    _change_file(cfg, change)
    count, remarks = _targets(cfg)
    assert count == 8
    assert any(re.search(r'train\.json: \d+ boxes or images', line) for line in remarks)
    assert cfg.val_evaluator.ann_file == _inner(cfg).ann_file
    written = json.loads(Path(_inner(cfg).ann_file).read_text())
    assert {one['area'] for one in written['annotations']} == {480}
    assert {one['iscrowd'] for one in written['annotations']} == {0}
    assert {one['category_id'] for one in written['annotations']} == {3, 4}


def test_check__a_file_that_mmdet_reads_right_stays(cfg: Config) -> None:
    assert _targets(cfg) == (8, [])
    assert _inner(cfg).ann_file == 'train.json'


@pytest.mark.parametrize('number', [float('nan'), float('inf'), 1e30, -1e30, 10**40])
def test_check__numbers_that_are_no_box(cfg: Config, number: float) -> None:
    _change_file(cfg, lambda d: d['annotations'][2]['bbox'].__setitem__(2, number))
    with pytest.raises(DatasetError, match=r'train\.json, annotation 1003: .*infinite'):
        check_annotation_files(cfg)


def test_check__a_set_in_another_form(cfg: Config) -> None:
    _change_file(cfg, _with(bbox=[40, 30, 80, 50]))
    with pytest.raises(DatasetError, match=r'train\.json: .*corners.*8 of 8'):
        check_annotation_files(cfg)


def test_check__one_string_is_one_class(cfg: Config) -> None:
    """mmengine would take the letters of the word."""
    _change_file(cfg, lambda d: d['categories'].pop())
    _change_file(cfg, _with(category_id=3))
    _change_file(cfg, lambda d: d['categories'][0].update(name='whale'))
    _inner(cfg).metainfo.classes = 'whale'
    cfg.model.bbox_head.num_classes = 1
    assert _targets(cfg)[0] == 8
    assert _inner(cfg).metainfo.classes == ('whale',)


def test_check__path_that_leads_out(cfg: Config, tmp_path: Path) -> None:
    name = f'{tmp_path.name}-secret.png'
    save_images(tmp_path.parent, [name])
    for written in (f'../../{name}', str(tmp_path.parent / name)):
        _change_file(cfg, lambda d, written=written: d['images'][0].update(file_name=written))
        with pytest.raises(DatasetError, match='leads out of'):
            check_annotation_files(cfg)


def test_check__damaged_image(cfg: Config, tmp_path: Path) -> None:
    (tmp_path / 'images/1.png').write_bytes((tmp_path / 'images/1.png').read_bytes()[:60])
    with pytest.raises(DatasetError, match=r'1\.png: the image cannot be read'):
        check_annotation_files(cfg)


@pytest.mark.parametrize('name', ['area0', 'areanull', 'noarea', 'nocrowd', 'strcat', 'good'])
def test_check__shared_case(cfg: Config, name: str, tmp_path: Path) -> None:
    shared = shared_dir()
    folder = shared / 'cases/coco_area_zero_null_absent' if shared else Path('absent')
    if not folder.exists():
        pytest.skip('no shared cases beside the repository')
    cfg.work_dir = str(tmp_path / 'work')
    changes = dict(data_root=str(folder), ann_file=f'{name}.json')
    _inner(cfg).update(**changes, metainfo=dict(classes=('a', 'b')))
    assert _targets(cfg)[0] == 24


def test_check__other_processes_name_the_same_copy(cfg: Config, tmp_path: Path) -> None:
    """They check nothing, and write nothing."""
    _change_file(cfg, lambda d: [one.update(area=0) for one in d['annotations']])
    other = Config(cfg.to_dict())
    copies = check_annotation_files(cfg, folder=tmp_path / 'copies').copies
    assert list(copies) == [Path(_inner(cfg).ann_file)]
    light = check_annotation_files(other, folder=tmp_path / 'copies', is_first=False)
    assert light.copies == {}
    assert other.to_dict() == cfg.to_dict()
    assert not (tmp_path / 'copies').exists()


def _names_of_images(document: dict[str, Any]) -> None:
    for image in document['images']:
        image['file_name'] = f'test_{image["file_name"]}'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda d: None, ''),
        (lambda d: d.update(info={'year': 2026}), ''),
        (lambda d: d['images'].pop(), r'1 of the 4 images.*such as id 4 \(3\.png\)'),
        (_names_of_images, r'4 of the 4 images.*such as id 1 \(0\.png\)'),
        (lambda d: d['images'].append(dict(id=9, file_name='9.png')), 'has 1 images that'),
        (lambda d: d['categories'].reverse(), 'square, circle.*circle, square'),
        (lambda d: d['categories'].pop(), r'as circle, .*circle, square'),
    ],
)
def test_check__evaluator_of_another_file(
    cfg: Config, tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    """A file of the same images and classes is as good, wherever it is."""
    document = json.loads((tmp_path / 'train.json').read_text())
    change(document)
    dump(tmp_path / 'other.json', document)
    cfg.val_dataloader = cfg.train_dataloader
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(tmp_path / 'other.json'))
    if not words:
        check_annotation_files(cfg)
        return
    with pytest.raises(DatasetError, match=words) as error:
        check_annotation_files(cfg)
    assert 'val_evaluator.ann_file' in str(error.value)
    assert '\n' not in str(error.value)
