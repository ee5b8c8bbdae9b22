"""Decodes all images of a dataset in parallel: what cannot be read, and which are there twice."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.errors import DatasetError
from effdet_plugin.images import read_image

_THUMB_SIDE = 16
# Grey levels by which the cells of two thumbnails of one image may differ, at most and on average.
# Photos that were saved as JPEG of quality 30, or scaled by 0.5 to 2, differ by up to 5 and 0.85;
# the two most similar cells of BCCD by 11 and 2.4.
_THUMB_SLACK, _THUMB_MEAN_SLACK = 6, 1.0
_LARGEST_POOL = 16


class Pixels(NamedTuple):
    """What is kept of a decoded image.

    Args:
        size: Width and height as the network sees them, pixels.
        digest: Hash of all pixels.
        thumb: (16, 16, 3) uint8, means of the image's cells.
    """

    size: tuple[int, int]
    digest: bytes
    thumb: NDArray[np.uint8]


class Copy(NamedTuple):
    """Two images that are one, as indices; ``exact`` if all pixels are equal."""

    first: int
    second: int
    exact: bool


def decode_all(paths: Sequence[Path]) -> list[Pixels | str]:
    """Decode images in threads, with a progress bar on a terminal.

    Returns:
        For each path its pixels, or the reason why it cannot be read.
    """
    workers = min(os.cpu_count() or 1, _LARGEST_POOL)
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(_decode, paths)
        return list(tqdm(results, 'images', len(paths), unit='', leave=False, disable=None))


def _decode(path: Path) -> Pixels | str:
    try:
        pixels = read_image(path)
    except DatasetError as error:
        return str(error.__cause__ or error)
    thumb = cv2.resize(pixels, (_THUMB_SIDE, _THUMB_SIDE), interpolation=cv2.INTER_AREA)
    digest = hashlib.sha1(pixels.data).digest()
    return Pixels((pixels.shape[1], pixels.shape[0]), digest, np.asarray(thumb, np.uint8))


def find_copies(images: Sequence[Pixels]) -> list[Copy]:
    """Return the images that are there twice: with the same pixels, or saved again or scaled.

    Args:
        images: In the order of the dataset.

    Returns:
        One `Copy` for each image that has an earlier one like it; ``first`` is the earliest.
    """
    by_digest: dict[tuple[object, ...], int] = {}
    firsts = [by_digest.setdefault((one.size, one.digest), i) for i, one in enumerate(images)]
    copies = {i: Copy(first, i, True) for i, first in enumerate(firsts) if first != i}
    unique = [i for i in range(len(images)) if i not in copies]
    for first, second in sorted(_near_pairs([images[i].thumb for i in unique])):
        one, other = unique[first], unique[second]
        if _same_shape(images[one].size, images[other].size):
            one = copies[one].first if one in copies else one
            copies.setdefault(other, Copy(one, other, False))
    return sorted(copies.values(), key=lambda copy: copy.second)


def _near_pairs(thumbs: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[int, int]]:
    """Yield pairs of indices, the smaller first, of thumbnails that are nearly the same."""
    if len(thumbs) < 2:
        return
    table = np.stack(thumbs).reshape(len(thumbs), -1).astype(np.int16)
    means = table.mean(axis=1)
    order = np.argsort(means, kind='stable')
    for first, second in neighbours(means[order], np.full(len(order), _THUMB_MEAN_SLACK)):
        one, other = order[first], order[second]
        # A few cells tell most pairs apart.
        alike = np.abs(table[one, ::37] - table[other, ::37]).max(axis=1) <= _THUMB_SLACK
        one, other = one[alike], other[alike]
        apart = np.abs(table[one] - table[other])
        alike = (apart.max(axis=1) <= _THUMB_SLACK) & (apart.mean(axis=1) <= _THUMB_MEAN_SLACK)
        pairs = zip(one[alike].tolist(), other[alike].tolist(), strict=True)
        yield from ((min(pair), max(pair)) for pair in pairs)


def neighbours(
    values: NDArray[np.float64], reach: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield index pairs (i, j), i < j, of sorted values with ``values[j] - values[i] <= reach[i]``.

    Args:
        values: (n,) ascending.
        reach: (n,) of each value.
    """
    for shift in range(1, len(values)):
        first = np.flatnonzero(values[shift:] - values[:-shift] <= reach[:-shift])
        if not len(first):
            return  # further ones are even farther
        yield first, first + shift


def _same_shape(one: Iterable[int], other: Iterable[int]) -> bool:
    (width, height), (other_width, other_height) = one, other
    return abs(width * other_height - height * other_width) <= 0.02 * width * other_height
