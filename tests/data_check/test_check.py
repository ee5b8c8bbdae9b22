"""A sound set has no faults; each planted one is found, at its place; a copy is cleaned of them."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from planted import FAULTS, NUM_IMAGES, build, write

from effdet_plugin.data_check import (
    CheckSettings,
    Report,
    check_dataset,
    write_clean_copy,
    write_json,
    write_report,
)
from effdet_plugin.errors import DatasetError, WriteError
from effdet_plugin.own_data import read_dataset
from support import REPOSITORY

CUSTOM = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'


def _check(data: Path, images: Path | None = None, config: Path = CUSTOM) -> Report:
    return check_dataset(CheckSettings(data, config, images))


def _kinds(report: Report) -> dict[str, int]:
    return {one.kind: one.count for one in report.description.findings}


def _planted(folder: Path, *names: str) -> Path:
    documents = build(folder)
    for name in names:
        FAULTS[name][1](folder, documents)
    write(folder, documents)
    return folder


def test_sound(tmp_path: Path) -> None:
    report = _check(_planted(tmp_path))
    assert _kinds(report) == {}
    assert 'No faults.' in report.page()
    assert not report.has_faults
    (row,) = [one for one in report.as_json()['classes'] if one['name'] == 'square']
    assert row.pop('name') == 'square'
    assert list(row.values()) == [12, 12, 0, 12, 0, 0]
    assert list(row) == ['boxes', 'images', 'small', 'medium', 'large', 'crowd']


@pytest.mark.parametrize('name', FAULTS)
def test_planted__alone(tmp_path: Path, name: str) -> None:
    report = _check(_planted(tmp_path, name))
    kind = 'image_unreadable' if name == 'truncated' else name
    # An image that is left out, or whose box is a crowd, has no other findings.
    assert _kinds(report) == {kind: 1}
    assert FAULTS[name][0] in report.page()


def test_planted__all_at_once(tmp_path: Path) -> None:
    names = [name for name in FAULTS if name not in ('box_crowd',)]
    report = _check(_planted(tmp_path, *names))
    assert _kinds(report) == {kind: 1 for kind in names if kind != 'truncated'} | {
        'image_unreadable': 2
    }
    page = report.page()
    assert all(FAULTS[name][0] in page for name in names)
    assert page.index('Errors:') < page.index('Faults:') < page.index('Notes:')
    assert report.has_errors


def test_clean_copy(tmp_path: Path) -> None:
    data = _planted(tmp_path / 'data', *FAULTS)
    before = {path: path.read_bytes() for path in data.rglob('*') if path.is_file()}
    counts = write_clean_copy(_check(data), tmp_path / 'clean')
    assert {path: path.read_bytes() for path in data.rglob('*') if path.is_file()} == before
    again = _check(tmp_path / 'clean')
    # Which of two names is right is for people to say.
    assert _kinds(again) == {'box_crowd': 1, 'image_without_objects': 1, 'class_alike': 1}
    # Of 8: two unreadable, one missing, one of another size, two copies (one of validation's).
    assert len(again.description.train) == 2
    assert len(again.description.splits['val'] or ()) == NUM_IMAGES['val']
    assert counts['copies'] == 2
    assert counts['twice'] == 1
    assert again.description.classes == read_dataset(data).classes


def test_clean_copy__refuses_the_data_and_what_is_there(tmp_path: Path) -> None:
    report = _check(_planted(tmp_path / 'data'))
    with pytest.raises(DatasetError, match='lies in the data'):
        write_clean_copy(report, tmp_path / 'data' / 'clean')
    with pytest.raises(DatasetError, match='lies in the data'):
        write_report(report, tmp_path / 'data' / 'train')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes.txt').touch()
    with pytest.raises(DatasetError, match='not empty'):
        write_clean_copy(report, tmp_path / 'full')
    (tmp_path / 'a_file').touch()
    with pytest.raises(WriteError, match='a_file/clean: cannot be opened or written'):
        write_clean_copy(report, tmp_path / 'a_file' / 'clean')


def test_report__page_images_and_json(tmp_path: Path) -> None:
    report = _check(_planted(tmp_path / 'data', 'box_twice', 'image_copy', 'class_alike'))
    names = [path.name for path in write_report(report, tmp_path / 'out')]
    assert names == ['report.html', 'samples.jpg', 'twice.jpg', 'copies.jpg', 'boxes.png']
    text = (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
    assert 'boxes.png' in text
    assert '&#x27;Circles&#x27;' in text  # names cannot bring their own html
    write_json(report, tmp_path / 'report.json')
    content = json.loads((tmp_path / 'report.json').read_text(encoding='utf-8'))
    assert {one['kind']: (one['level'], one['count']) for one in content['findings']} == {
        'box_twice': ('fault', 1), 'image_copy': ('fault', 1), 'class_alike': ('fault', 1),
    }  # fmt: skip
    assert content['splits'][0] == {
        'name': 'train', 'images': 8, 'empty': 0, 'boxes': 24, 'crowd': 0,
    }  # fmt: skip


@pytest.mark.parametrize('place', ['beside', 'images/train', 'sibling', 'elsewhere'])
def test_bare_json__finds_its_images(tmp_path: Path, place: str) -> None:
    documents = build(tmp_path / 'built')
    folder = tmp_path / 'set' / 'labels_json'
    folder.mkdir(parents=True)
    write(folder, {'train': documents['train']})
    target = {
        'beside': folder / 'train', 'images/train': folder / 'images' / 'train',
        'sibling': tmp_path / 'set' / 'images' / 'deep', 'elsewhere': tmp_path / 'other',
    }[place]  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'built' / 'train').rename(target)
    report = _check(folder / 'train.json', target if place == 'elsewhere' else None)
    assert _kinds(report) == {}
    assert len(report.description.train) == NUM_IMAGES['train']


def _config(tmp_path: Path, classes: tuple[str, ...]) -> Path:
    lines = [
        f'_base_ = {str(CUSTOM)!r}',
        f'model = dict(bbox_head=dict(num_classes={len(classes)}))',
    ]
    for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        source = (
            f"data_root={str(tmp_path)!r}, ann_file='{split}.json', "
            f"data_prefix=dict(img='{split}/'), metainfo=dict(classes={classes})"
        )
        lines.append(f'{loader}_dataloader = dict(dataset=dict(dataset=dict({source})))')
    path = tmp_path / 'own.py'
    path.write_text('\n'.join(lines), encoding='utf-8')
    return path


def test_config__its_data_and_classes(tmp_path: Path) -> None:
    _planted(tmp_path, 'image_copy_across')
    report = _check(_config(tmp_path, ('circle', 'square')))
    assert _kinds(report) == {'image_copy_across': 1}
    assert [name for name, split in report.description.splits.items() if split] == ['train', 'val']
    report = _check(_config(tmp_path, ('circle', 'star')))
    assert {'class_absent': 2, 'class_left_out': 2}.items() <= _kinds(report).items()
    report = _check(_config(tmp_path, ('star',)))
    assert report.has_errors
    assert 'does not fit the data' in report.page()


def test_config__missing_json_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'train\.json: there is no such annotation file'):
        _check(_config(tmp_path, ('circle',)))


def test_config__without_anchors(tmp_path: Path) -> None:
    fcos = REPOSITORY / 'configs' / 'mix' / 'fcos_r18_bifpn_coco.py'
    report = _check(_planted(tmp_path), config=fcos)
    assert report.reach is None
    assert 'has no anchors' in report.page()


def test_mmdet_anchors__are_compared(tmp_path: Path) -> None:
    retinanet = REPOSITORY / 'configs' / 'mix' / 'retinanet_r18_bifpn_coco.py'
    assert isinstance(Config.fromfile(retinanet), Config)
    report = _check(_planted(tmp_path), config=retinanet)
    assert report.reach is not None
    assert report.reach.missed == 0
