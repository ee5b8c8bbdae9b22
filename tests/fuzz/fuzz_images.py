"""Mutants of images in every format: bytes, and what their headers say of sides and depth."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Action, Maker
from mutants import mutant_bytes
from PIL import Image

from effdet_plugin.data_check.images import decode_all
from effdet_plugin.errors import DatasetError
from effdet_plugin.images import UnreadableImageError, largest_value, read_header, read_image

SIZE = (61, 43)
_SIDES = (0, 1, 2, 7, 255, 1000, 9999, 10_001, 32_767, 65_535, 2**31 - 1, 2**32 - 1)
_ODD = (0, 1, 2, 3, 5, 6, 8, 16, 32, 64, 255, 32_773, 50_013, 65_535)


def _colours(seed: int = 0) -> Image.Image:
    """Smooth colours with noise, so that all tables of the coders are used."""
    chance = np.random.default_rng(seed)
    values = np.add.outer(np.arange(SIZE[1]), np.arange(SIZE[0]))[..., None] * [1, 2, 3]
    noise = chance.integers(0, 40, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(((values + noise) % 256).astype(np.uint8))


@cache
def samples(form: str) -> list[bytes]:
    """Whole files of a format: modes, compressions, orientations, several frames."""
    colour, exif = _colours(), Image.Exif()
    exif[274] = 6
    grey, palette, bit = (colour.convert(mode) for mode in ('L', 'P', '1'))
    alpha, cmyk = colour.convert('RGBA'), colour.convert('CMYK')
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    frames: dict[str, Any] = dict(save_all=True, append_images=[_colours(1), _colours(2)])
    saved: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        'JPEG': [(colour, {}), (grey, {}), (cmyk, {}), (colour, dict(progressive=True)),
                 (colour, dict(exif=exif)), (colour, dict(optimize=True, subsampling=0))],
        'PNG': [(colour, {}), (grey, {}), (palette, {}), (bit, {}), (alpha, {}), (deep, {}),
                (colour, dict(exif=exif)), (colour, frames)],
        'WEBP': [(colour, {}), (colour, dict(lossless=True)), (alpha, {}), (colour, frames),
                 (colour, dict(exif=exif))],
        'TIFF': [(colour, {}), (grey, dict(compression='tiff_lzw')), (deep, {}),
                 (colour, dict(compression='tiff_adobe_deflate')), (colour, frames),
                 (bit, dict(compression='group4')), (colour, dict(compression='packbits')),
                 (colour, dict(compression='jpeg')), (colour, dict(exif=exif)),
                 (palette, dict(compression='tiff_lzw'))],
        'BMP': [(colour, {}), (grey, {}), (palette, {}), (bit, {}), (alpha, {})],
        'GIF': [(palette, {}), (grey, {}), (palette, frames)],
        'PPM': [(colour, {}), (grey, {}), (bit, {}), (deep, {})],
        'AVIF': [(colour, {})],
        'JPEG2000': [(colour, {}), (grey, {})],
    }  # fmt: skip
    return [_saved(image, form, options) for image, options in saved[form]]


def _saved(image: Image.Image, form: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png_header(data: bytearray, chance: random.Random) -> None:
    """Other sides, depth, colour type or interlacing, and a checksum that fits."""
    width, height = struct.unpack('>II', data[16:24])
    width, height = (chance.choice((side, chance.choice(_SIDES))) for side in (width, height))
    data[16:24] = struct.pack('>II', width, height)
    data[24] = chance.choice((data[24], 1, 2, 4, 8, 16))
    data[25] = chance.choice((data[25], 0, 2, 3, 4, 6))
    data[28] = chance.choice((0, 0, 1, 2))
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))


def tiff_tags(data: bytearray, chance: random.Random) -> None:
    """Other values, types or counts of some tags of the first directory."""
    (start,) = struct.unpack('<I', data[4:8])
    (count,) = struct.unpack('<H', data[start : start + 2])
    for _ in range(chance.randint(1, 3)):
        at = start + 2 + 12 * chance.randrange(count)
        what = chance.randrange(4)
        if what == 0:
            struct.pack_into('<H', data, at + 2, chance.choice((1, 2, 3, 4, 5, 12, 16, 255)))
        elif what == 1:
            struct.pack_into('<I', data, at + 4, chance.choice(_SIDES))
        else:
            struct.pack_into('<I', data, at + 8, chance.choice(_SIDES + _ODD))


def jpeg_frame(data: bytearray, chance: random.Random) -> None:
    """Other sides, depth or sampling in the frame header."""
    at = max(data.find(b'\xff\xc0'), data.find(b'\xff\xc2'))
    if at >= 0:
        sides = [chance.choice((0, 1, 8, 9000, 20_000, 65_535)) for _ in range(2)]
        struct.pack_into('>BHH', data, at + 4, chance.choice((8, 8, 8, 12, 16)), *sides)
        data[at + 11] = chance.choice((0x11, 0x22, 0x44, 0x41, 0))


def sides_at(form: str, offset: int, data: bytearray, chance: random.Random) -> None:
    """Other numbers where a format has its sides."""
    for place in range(2):
        limit = 1 << 8 * struct.calcsize(form)
        value = chance.choice(_SIDES) % limit
        struct.pack_into(form, data, offset + place * struct.calcsize(form), value)


def exif_block(chance: random.Random) -> bytes:
    """Tags of any type, count and place, orientations among them, in either order of bytes."""
    order, tags = chance.choice('<>'), chance.randint(0, 5)
    block = b''.join(
        struct.pack(
            f'{order}HHIHH',
            chance.choice((274, 274, 271, 282, 306, 305, 34_665, 700)),
            chance.choice((1, 2, 3, 3, 3, 4, 5, 7, 12, 0, 255)),
            chance.choice((0, 1, 1, 1, 2, 5, 1000, 2**32 - 1)),
            *(chance.randint(0, 9) for _ in range(2)),
        )
        for _ in range(tags)
    )
    count = chance.choice((tags, tags, tags, tags + 1, 60_000))
    start = b'II' if order == '<' else b'MM'
    head = start + struct.pack(f'{order}HIH', chance.choice((42,) * 5 + (43,)), 8, count)
    return b'Exif\0\0' + head + block + bytes(chance.choice((0, 4, 40)))


def turned(folder: Path, chance: random.Random) -> Action:
    """An image with EXIF data that nobody wrote; its pixels are whole."""
    form = chance.choice(('JPEG', 'WEBP', 'PNG'))
    path = folder / f'x.{form.lower()}'
    path.write_bytes(_saved(_colours(), form, dict(exif=exif_block(chance))))
    return read_all_ways(path)


_HEADERS: dict[str, Callable[[bytearray, random.Random], None]] = {
    'PNG': png_header, 'TIFF': tiff_tags, 'JPEG': jpeg_frame, 'BMP': partial(sides_at, '<I', 18),
    'GIF': partial(sides_at, '<H', 6), 'WEBP': partial(sides_at, '<H', 26),
}  # fmt: skip


def mutant(form: str, folder: Path, chance: random.Random) -> Action:
    """A file with other bytes or another header."""
    data = bytearray(chance.choice(samples(form)))
    if form in _HEADERS and chance.random() < 0.4:
        _HEADERS[form](data, chance)
    if chance.random() < 0.7:
        head = bytes(data[: chance.choice((64, 300, len(data)))])
        data[: len(head)] = mutant_bytes(head, chance)
    path = folder / f'x.{form.lower()}'
    path.write_bytes(data)
    return read_all_ways(path)


def read_all_ways(path: Path) -> Action:
    """Read an image as data check, size look-up and inference do; all must see one size."""

    def action() -> None:
        decode_all([path])
        try:
            header = read_header(path)
        except UnreadableImageError as error:
            raise DatasetError(str(error)) from error
        if header.has_16_bits:
            with suppress(UnreadableImageError):
                largest_value(path)
        height, width, _ = read_image(path).shape
        assert header.size == (width, height)

    return action


FORMATS = ('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'PPM', 'AVIF', 'JPEG2000')
KINDS: dict[str, Maker] = {form.lower(): partial(mutant, form) for form in FORMATS}
KINDS['exif'] = turned
