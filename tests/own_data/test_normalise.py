"""Sizes are those of the upright image, as OpenCV will read it; what is no image is refused."""

import json
from pathlib import Path

import cv2
import pytest
from layout_builder import save_image

from effdet_plugin.images import UnreadableImageError, read_header
from support import shared_dir


@pytest.mark.parametrize('orientation', range(1, 9))
def test_read_header__equals_what_opencv_reads(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / 'x.jpg'
    save_image(path, (30, 20), orientation)
    read = cv2.imread(str(path))
    assert read is not None
    assert read_header(path).size == (read.shape[1], read.shape[0])


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp'])
def test_read_header__content_counts_not_the_suffix(suffix: str, tmp_path: Path) -> None:
    save_image(tmp_path / f'x{suffix}', (30, 20))
    (tmp_path / f'x{suffix}').rename(tmp_path / 'x.jpeg')
    assert read_header(tmp_path / 'x.jpeg').size == (30, 20)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('cut', [0, 10, 60, 95])
def test_read_header__cut_short(suffix: str, cut: int, tmp_path: Path) -> None:
    path = tmp_path / f'x{suffix}'
    save_image(path, (300, 200))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * cut // 100])
    with pytest.raises(UnreadableImageError):
        read_header(path)


def test_read_header__bytes_after_the_end_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / 'x.jpg'
    save_image(path, (30, 20))
    path.write_bytes(path.read_bytes() + b'of a camera' * 100)
    assert read_header(path).size == (30, 20)


def test_read_header__missing_text_and_folder(tmp_path: Path) -> None:
    (tmp_path / 'text.jpg').write_text('no image', encoding='utf-8')
    (tmp_path / 'folder.jpg').mkdir()
    for name in ('missing.jpg', 'text.jpg', 'folder.jpg'):
        with pytest.raises(UnreadableImageError):
            read_header(tmp_path / name)


def test_read_header__odd_images_of_the_sample_data() -> None:
    shared = shared_dir()
    folder = shared / 'data/odd_images' if shared else Path('absent')
    if not folder.is_dir():
        pytest.skip('the odd images are not here')
    expected = json.loads((folder / 'expected.json').read_text(encoding='utf-8'))
    for name, shape in expected.items():
        shapes = shape if isinstance(shape, list) and isinstance(shape[0], list | None) else [shape]
        try:
            width, height = read_header(folder / name).size
        except UnreadableImageError:
            assert None in shapes or 'truncated' in name, name
        else:
            assert [height, width, 3] in shapes, name
