"""What a header says of an image: turned where OpenCV turns it, or of an unknown scale."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from effdet_plugin.errors import DatasetError
from effdet_plugin.images import read_header, read_image

WIDTH, HEIGHT = 24, 16
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    '"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
GREY = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 200


def plain() -> Image.Image:
    return Image.fromarray(np.repeat(GREY[..., None], 3, 2).astype(np.uint8))


def size_of_pixels(path: Path) -> tuple[int, int]:
    height, width, _ = read_image(path).shape
    return width, height


def tag(number: int, kind: int, count: int, value: bytes, order: str = '<') -> bytes:
    return struct.pack(f'{order}HHI', number, kind, count) + value


def exif(*tags: bytes, order: str = '<') -> bytes:
    start = b'II' if order == '<' else b'MM'
    head = start + struct.pack(f'{order}HIH', 42, 8, len(tags))
    return b'Exif\0\0' + head + b''.join(tags) + bytes(4)


BROKEN_TEXT = tag(306, 2, 2**31, bytes(4))
ORIENTATIONS: dict[str, tuple[bytes, int]] = {
    'short': (exif(tag(274, 3, 1, b'\6\0\0\0')), 6),
    'a byte': (exif(tag(274, 1, 1, b'\6\0\0\0')), 6),
    'no value': (exif(tag(274, 3, 0, b'\6\0\0\0')), 6),
    'long': (exif(tag(274, 4, 1, b'\6\0\0\0')), 6),
    'long, big-endian': (exif(tag(274, 4, 1, b'\0\0\0\6', '>'), order='>'), 1),
    'short, big-endian': (exif(tag(274, 3, 1, b'\0\6\0\0', '>'), order='>'), 6),
    'twice': (exif(tag(274, 3, 1, b'\1\0\0\0'), tag(274, 3, 1, b'\6\0\0\0')), 1),
    'out of range': (exif(tag(274, 3, 1, b'\x09\0\0\0')), 1),
    'behind a broken text': (exif(BROKEN_TEXT, tag(274, 3, 1, b'\6\0\0\0')), 1),
    'before a broken text': (exif(tag(274, 3, 1, b'\6\0\0\0'), BROKEN_TEXT), 6),
    'not EXIF': (b'Exif\0\0nothing', 1),
}


@pytest.mark.parametrize('name', ORIENTATIONS)
@pytest.mark.parametrize('suffix', ['jpg', 'webp'])
def test_header__orientation_is_the_one_that_opencv_obeys(
    name: str, suffix: str, tmp_path: Path
) -> None:
    data, orientation = ORIENTATIONS[name]
    plain().save(tmp_path / f'a.{suffix}', exif=data)
    header = read_header(tmp_path / f'a.{suffix}')
    assert header.orientation == orientation
    assert header.size == size_of_pixels(tmp_path / f'a.{suffix}')
    assert header.size == ((HEIGHT, WIDTH) if orientation == 6 else (WIDTH, HEIGHT))


@pytest.mark.parametrize('name', ['a.jpg', 'a.webp', 'a.png', 'a.tif'])
def test_header__an_orientation_in_xmp_alone_turns_nothing(name: str, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt('XML:com.adobe.xmp', XMP)
    options: Any = {
        'a.png': {'pnginfo': info}, 'a.tif': {'tiffinfo': {700: XMP.encode()}},
    }.get(name, {'xmp': XMP.encode()})  # fmt: skip
    plain().save(tmp_path / name, **options)
    header = read_header(tmp_path / name)
    assert header.orientation == 1
    assert header.size == size_of_pixels(tmp_path / name) == (WIDTH, HEIGHT)


def save_tiff(path: Path, values: np.ndarray[Any, Any], sample_format: int) -> None:
    """A grey TIFF of any type of numbers; Pillow writes few of them."""
    data, bits = values.tobytes(), values.itemsize * 8
    height, width = values.shape
    numbers = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    numbers |= {279: len(data), 339: sample_format}
    tags = b''.join(tag(key, 4, 1, struct.pack('<I', value)) for key, value in numbers.items())
    start = struct.pack('<2sHI', b'II', 42, 8 + len(data))
    path.write_bytes(start + data + struct.pack('<H', len(numbers)) + tags + bytes(4))


@pytest.mark.parametrize(
    ('kind', 'sample_format'),
    [('<i2', 2), ('i1', 2), ('<f4', 3), ('<f2', 3), ('<f8', 3), ('<i4', 2), ('<u4', 1)],
)
def test_tiff_of_unknown_scale__is_refused(kind: str, sample_format: int, tmp_path: Path) -> None:
    save_tiff(tmp_path / 'a.tif', GREY.astype(kind), sample_format)
    with pytest.raises(DatasetError, match='whose scale is unknown'):
        read_image(tmp_path / 'a.tif')


@pytest.mark.parametrize(('kind', 'sample_format'), [('u1', 1), ('<u2', 1)])
def test_tiff_of_known_scale__is_read(kind: str, sample_format: int, tmp_path: Path) -> None:
    values = GREY * 257 if kind == '<u2' else GREY
    save_tiff(tmp_path / 'a.tif', values.astype(kind), sample_format)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.tif'), np.asarray(plain()))


def pnm(values: np.ndarray[Any, Any], white: int) -> bytes:
    kind = '>u2' if white > 255 else 'u1'
    return f'P5 {WIDTH} {HEIGHT} {white}\n'.encode() + values.astype(kind).tobytes()


@pytest.mark.parametrize('white', [100, 1023, 4095])
def test_pgm_whose_white_opencv_ignores__is_refused(white: int, tmp_path: Path) -> None:
    (tmp_path / 'a.pgm').write_bytes(pnm(GREY * white // 255, white))
    with pytest.raises(DatasetError, match=f'its white is {white}'):
        read_image(tmp_path / 'a.pgm')


@pytest.mark.parametrize('white', [255, 65535])
def test_pgm__is_read(white: int, tmp_path: Path) -> None:
    (tmp_path / 'a.pgm').write_bytes(pnm(GREY * (white // 255), white))
    np.testing.assert_array_equal(read_image(tmp_path / 'a.pgm'), np.asarray(plain()))
