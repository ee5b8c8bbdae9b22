"""Many files: drawings, the json, and files that cannot be read."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import write_image
from effdet_plugin.images import read_image
from effdet_plugin.inference import Detector, find_images, infer_files
from effdet_plugin.inference.image_files import drawing_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of different sizes and a broken one, b.jpg."""
    for name, size in (('a.png', (40, 60)), ('c.jpg', (30, 20)), ('d.png', (1, 1))):
        write_image(tmp_path / 'in' / name, np.full((*size, 3), 90, np.uint8))
    (tmp_path / 'in' / 'b.jpg').write_text('no image')
    return tmp_path / 'in'


def test_infer_files__drawings_json_and_unreadable(
    tiny_config: Config, folder: Path, tmp_path: Path
) -> None:
    detector = Detector(tiny_config, 'none', batch_size=2)
    result = infer_files(detector, find_images(folder), tmp_path / 'out')
    assert result.num_read == 3
    assert len(result.unreadable) == 1
    assert 'b.jpg' in result.unreadable[0]
    written = sorted(path.name for path in (tmp_path / 'out' / 'vis').iterdir())
    assert written == ['a.png', 'c.jpg', 'd.png']
    assert read_image(tmp_path / 'out' / 'vis' / 'c.jpg').shape == (30, 20, 3)
    rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert rows == result.predictions
    assert {row['file_name']: row['image_id'] for row in rows if row['image_id'] < 4} == {
        'a.png': 1,
        'c.jpg': 3,
    }
    assert all(row['category_name'] == ('cat', 'dog')[row['category_id'] - 1] for row in rows)


def test_infer_files__boxes_in_cocos_form(tiny_config: Config, folder: Path) -> None:
    detector = Detector(tiny_config, 'none')
    rows = infer_files(detector, [folder / 'a.png'], folder / 'out').predictions
    found = detector(folder / 'a.png')[0].pred_instances
    assert len(rows) == len(found) > 0
    for row, box, score in zip(rows, found.bboxes.tolist(), found.scores.tolist(), strict=True):
        x1, y1, x2, y2 = box
        assert row['bbox'] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.01)
        assert row['score'] == pytest.approx(score, abs=1e-5)


def test_infer_files__the_only_file_is_broken(tiny_config: Config, folder: Path) -> None:
    with pytest.raises(DatasetError, match=r'b\.jpg'):
        infer_files(Detector(tiny_config, 'none'), [folder / 'b.jpg'], folder / 'out')
    assert not (folder / 'out').exists()


def test_drawing_names__png_stays_png_and_none_comes_twice() -> None:
    files = [Path(name) for name in ('x/a.png', 'x/a.jpg', 'y/a.JPEG', 'A.gif', 'b.PNG')]
    assert drawing_names(files) == ['a.png', 'a.jpg', 'a_2.jpg', 'A_3.jpg', 'b.png']


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of b.png, a.JPG, notes and a sub-folder with c.png."""
    for name in ('b.png', 'a.JPG', 'notes.json', 'sub/c.png', '.hidden.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_find_images__file_folder_glob(images: Path) -> None:
    assert find_images(images / 'b.png') == [images / 'b.png']
    assert find_images(images) == [images / 'a.JPG', images / 'b.png']
    assert find_images(f'{images}/**/*.png') == [images / 'b.png', images / 'sub' / 'c.png']


def test_find_images__a_list_keeps_its_order(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / 'list.txt').write_text('# mine\nsub/c.png\n\nb.png\ngone.png\n')
    expected = [images / 'sub/c.png', images / 'b.png', Path('gone.png')]
    assert find_images(images / 'list.txt') == expected
    (images / 'sub' / 'list.txt').write_text('b.png\n')
    monkeypatch.chdir(images)
    assert find_images('sub/list.txt') == [Path('b.png')]


def test_find_images__a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / 'a[1].png').touch()
    assert find_images(tmp_path / 'a[1].png') == [tmp_path / 'a[1].png']


@pytest.mark.parametrize(
    ('source', 'says'),
    [('none.png', 'none.png'), ('*.bmp', r'\*\.bmp'), ('', r'\*\*/\*\.jpg')],
)
def test_find_images__says_what_is_missing(tmp_path: Path, source: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        find_images(tmp_path / source)
