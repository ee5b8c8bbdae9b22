"""Which images are there twice: equal, saved again, scaled; and which are not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from planted import draw

from effdet_plugin.data_check.images import Copy, Pixels, decode_all, find_copies, neighbours


def _decoded(*paths: Path) -> list[Pixels]:
    return [one for one in decode_all(paths) if isinstance(one, Pixels)]


def test_find_copies__saved_again_and_scaled(tmp_path: Path) -> None:
    paths = [tmp_path / f'{name}.jpg' for name in ('a', 'b', 'equal', 'again', 'half', 'mirror')]
    for seed, path in enumerate(paths[:2]):
        draw(path, seed)
        with Image.open(path) as image:
            image.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    paths[2].write_bytes(paths[1].read_bytes())
    with Image.open(paths[0]) as image:
        image.save(paths[3], quality=50)
        image.resize((320, 240), Image.Resampling.LANCZOS).save(paths[4])
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(paths[5])
    assert find_copies(_decoded(*paths)) == [
        Copy(1, 2, True),
        Copy(0, 3, False),
        Copy(0, 4, False),
    ]


def test_find_copies__an_object_that_moved_is_another_image(tmp_path: Path) -> None:
    paths = []
    for place in range(6):  # a fixed camera
        pixels = np.full((480, 640, 3), 90, np.uint8)
        cv2.rectangle(pixels, (100 * place, 200), (100 * place + 20, 220), (200, 30, 30), -1)
        paths.append(tmp_path / f'{place}.png')
        Image.fromarray(pixels).save(paths[-1])
    assert find_copies(_decoded(*paths)) == []


def test_find_copies__of_another_shape_are_others() -> None:
    thumb = np.full((16, 16, 3), 7, np.uint8)
    wide, high = Pixels((200, 100), b'a', thumb), Pixels((100, 200), b'b', thumb)
    assert find_copies([wide, high]) == []
    assert find_copies([wide, Pixels((100, 50), b'c', thumb)]) == [Copy(0, 1, False)]
    assert find_copies([]) == find_copies([wide]) == []


def test_decode_all__says_why(tmp_path: Path) -> None:
    whole, cut, none = (tmp_path / name for name in ('whole.jpg', 'cut.jpg', 'none.jpg'))
    draw(whole, 3)
    cut.write_bytes(whole.read_bytes()[:-400])
    found = decode_all([whole, cut, none])
    assert isinstance(found[0], Pixels)
    assert found[0].size == (160, 120)
    assert 'truncated' in str(found[1])
    assert found[2] == 'no such file'


@pytest.mark.parametrize('seed', range(3))
def test_neighbours__all_pairs_within_reach(seed: int) -> None:
    random = np.random.default_rng(seed)
    values, reach = np.sort(random.uniform(0, 100, 60)), random.uniform(0, 20, 60)
    found = {
        (int(i), int(j))
        for first, second in neighbours(values, reach)
        for i, j in zip(first, second, strict=True)
    }
    assert found == {
        (i, j) for i in range(60) for j in range(i + 1, 60) if values[j] - values[i] <= reach[i]
    }
