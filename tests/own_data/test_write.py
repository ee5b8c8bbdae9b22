"""The json that is written is what pycocotools and mmdet read, written atomically."""

import json
import os
from pathlib import Path

import pytest
from layout_builder import BOTH, coco, dump, fingerprint, save_images
from pycocotools.coco import COCO

from effdet_plugin.own_data import read_dataset, with_validation, write_coco
from effdet_plugin.own_data.write import image_root


def _data(root: Path) -> Path:
    names = [f'images/{number}.jpg' for number in range(6)]
    save_images(root, names)
    document = coco(names, boxes={0: [*BOTH, (0, (90, 60, 20, 20))]}, first_image=50)
    document['annotations'][0].update(area=123.5, segmentation=[[1, 2, 3, 4, 5, 6]])
    document['annotations'][1]['iscrowd'] = 1
    dump(root / 'a.json', document)
    return root


def test_write_coco__ids_areas_crowds_and_clipped_boxes(tmp_path: Path) -> None:
    description = read_dataset(_data(tmp_path / 'data'))
    paths = write_coco(description, tmp_path / 'out')
    assert list(paths) == ['train']
    written = COCO(str(paths['train']))
    assert written.getImgIds() == [50, 51, 52, 53, 54, 55]
    assert written.anns[1001]['area'] == 123.5
    assert written.anns[1002]['iscrowd'] == 1
    assert written.anns[1003]['bbox'] == [90, 60, 6, 4]
    assert [one['name'] for one in written.loadCats(written.getCatIds())] == ['circle', 'square']
    root = image_root(description)
    assert all((root / image['file_name']).is_file() for image in written.imgs.values())


def test_write_coco__failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = with_validation(read_dataset(_data(tmp_path / 'data')))
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/train.json').write_text('old', encoding='utf-8')

    def fail(_: int) -> None:
        raise OSError('disk full')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        write_coco(description, tmp_path / 'out')
    assert list(fingerprint(tmp_path / 'out')) == ['train.json']
    assert (tmp_path / 'out/train.json').read_text(encoding='utf-8') == 'old'


def test_write_coco__is_the_same_for_the_same_data(tmp_path: Path) -> None:
    data = _data(tmp_path / 'data')
    first = write_coco(with_validation(read_dataset(data)), tmp_path / 'a')
    second = write_coco(with_validation(read_dataset(data)), tmp_path / 'b')
    assert fingerprint(tmp_path / 'a') == fingerprint(tmp_path / 'b')
    images = [json.loads(path.read_text())['images'] for path in first.values()]
    assert sum(map(len, images)) == 6
    assert second.keys() == first.keys() == {'train', 'val'}
