"""Odd image files are read: made here, and the shared folder of odd ones if it is there."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import write_image
from effdet_plugin.images import read_image
from support import shared_dir

RED, BLUE = (250, 10, 10), (10, 10, 250)


def _two_halves() -> Image.Image:
    """Left half red, right half blue, 24 wide and 16 high."""
    image = Image.new('RGB', (24, 16), RED)
    image.paste(BLUE, (12, 0, 24, 16))
    return image


def _save_exif(orientation: int) -> Callable[[Path], None]:
    """Store the halves turned so that the orientation puts them upright."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}

    def save(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        _two_halves().transpose(turns[orientation]).save(path, exif=exif, quality=95)

    return save


def _save_rgb16(path: Path) -> None:
    bgr = np.asarray(_two_halves())[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(path), bgr)


def _save_cmyk(path: Path) -> None:
    _two_halves().convert('CMYK').save(path, 'JPEG', quality=95)


COLOURED: dict[str, Callable[[Path], None]] = {
    'plain.png': lambda path: _two_halves().save(path),
    'alpha.png': lambda path: _two_halves().convert('RGBA').save(path),
    'palette.png': lambda path: _two_halves().quantize(4).save(path),
    'rgb16.png': _save_rgb16,
    'cmyk.jpg': _save_cmyk,
    'exif_3.jpg': _save_exif(3),
    'exif_6.jpg': _save_exif(6),
    'progressive.jpg': lambda path: _two_halves().save(path, progressive=True, quality=95),
    'really_png.jpg': lambda path: _two_halves().save(path, 'PNG'),
    'grüße ☃.bmp': lambda path: _two_halves().save(path),
}


@pytest.mark.parametrize('name', COLOURED)
def test_read_image__colours_and_orientation(tmp_path: Path, name: str) -> None:
    COLOURED[name](tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8
    assert image.shape == (16, 24, 3)
    np.testing.assert_allclose(image[3:13, 2:10].mean((0, 1)), RED, atol=14)
    np.testing.assert_allclose(image[3:13, 14:22].mean((0, 1)), BLUE, atol=14)


GREY: dict[str, Callable[[Path], object]] = {
    'grey.jpg': lambda path: Image.new('L', (5, 4), 100).save(path),
    'grey_alpha.png': lambda path: Image.new('LA', (5, 4), (100, 30)).save(path),
    'grey16.png': lambda path: cv2.imwrite(str(path), np.full((4, 5), 100 * 257, np.uint16)),
    'one_pixel.png': lambda path: Image.new('L', (1, 1), 100).save(path),
}


@pytest.mark.parametrize('name', GREY)
def test_read_image__grey_becomes_three_equal_channels(tmp_path: Path, name: str) -> None:
    GREY[name](tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == ((1, 1, 3) if name == 'one_pixel.png' else (4, 5, 3))
    assert np.abs(image.astype(int) - 100).max() <= 1


def _cut_png(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:60])


BROKEN: dict[str, Callable[[Path], object]] = {
    'empty.jpg': lambda path: path.write_bytes(b''),
    'text.jpg': lambda path: path.write_text('not a image'),
    'cut.png': _cut_png,
    'folder.jpg': lambda path: path.mkdir(),
    'missing.jpg': lambda path: None,
}


@pytest.mark.parametrize('name', BROKEN)
def test_read_image__error_is_one_line_with_the_file(tmp_path: Path, name: str) -> None:
    BROKEN[name](tmp_path / name)
    with pytest.raises(DatasetError, match=name) as caught:
        read_image(tmp_path / name)
    assert '\n' not in str(caught.value).strip()


def _shape(path: Path) -> list[int] | None:
    try:
        return list(read_image(path).shape)
    except DatasetError:
        return None


def test_read_image__shared_odd_images() -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip('no shared folder beside the repository')
    folder = shared / 'data' / 'odd_images'
    for name, expected in json.loads((folder / 'expected.json').read_text()).items():
        allowed = [expected] if expected is None or isinstance(expected[0], int) else expected
        assert _shape(folder / name) in allowed, name


def test_read_image__cmyk_is_near_its_rgb_twin() -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip('no shared folder beside the repository')
    folder = shared / 'data' / 'odd_images'
    base, cmyk = (read_image(folder / f'{name}.jpg').astype(int) for name in ('base', 'cmyk'))
    assert np.abs(base - cmyk).mean() < 6


def test_write_image__leaves_the_image_and_nothing_else(tmp_path: Path) -> None:
    image = np.asarray(_two_halves())
    write_image(tmp_path / 'new' / 'a.png', image)
    np.testing.assert_array_equal(read_image(tmp_path / 'new' / 'a.png'), image)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['a.png']
