"""Which image a written name means."""

from pathlib import Path

import pytest
from layout_builder import save_images

from effdet_plugin.own_data.find_images import AmbiguousNameError, ImageIndex, list_tree, spellings

FILES = [
    'images/train/a/0.jpg',
    'images/train/b/0.jpg',
    'images/val/a/0.jpg',
    'images/only.JPG',
    'images/my photo.png',
    'masks/only.png',
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_images(tmp_path, FILES)
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'split', 'expected', 'exact'),
    [
        ('a/0.jpg', 'train', 'images/train/a/0.jpg', True),
        ('a/0.jpg', 'val', 'images/val/a/0.jpg', True),
        ('b\\0.jpg', None, 'images/train/b/0.jpg', True),
        ('only.jpg', None, 'images/only.JPG', True),
        ('./images/only.JPG', None, 'images/only.JPG', True),
        ('../images/only.JPG', None, 'images/only.JPG', True),
        ('my%20photo.png', None, 'images/my photo.png', True),
        ('C:\\x\\images\\only.jpg', None, 'images/only.JPG', False),
        ('/x/train/b/0.jpg', None, 'images/train/b/0.jpg', False),
        ('s3://bucket/images/only.jpg', None, 'images/only.JPG', False),
        ('data/local-files/?d=images/only.jpg', None, 'images/only.JPG', True),
        ('elsewhere/only.jpg', None, 'images/only.JPG', False),
    ],
)
def test_find(root: Path, name: str, split: str | None, expected: str, exact: bool) -> None:
    found = ImageIndex(list_tree(root)).find(name, root / 'annotations' / 'x.json', split)
    assert found is not None
    assert found.path == root / expected
    assert found.exact == exact


def test_find__another_suffix(root: Path) -> None:
    found = ImageIndex(list_tree(root)).find('only.png', root / 'x.json')
    assert found is not None
    assert found.path == root / 'images/only.JPG'  # not the mask
    assert not found.same_suffix


def test_find__absent_or_unclear(root: Path) -> None:
    index = ImageIndex(list_tree(root))
    assert index.find('9.jpg', root / 'x.json') is None
    assert index.find('', root / 'x.json') is None
    with pytest.raises(AmbiguousNameError, match=r'train/a/0\.jpg.*train/b/0\.jpg'):
        index.find('0.jpg', root / 'x.json', 'train')


def test_find__climbing_names_stay_inside(root: Path) -> None:
    inner = root / 'images'
    index = ImageIndex(list_tree(inner))
    found = index.find('../masks/only.png', inner / 'x.json')
    assert found is not None
    assert found.path == inner / 'only.JPG'


def test_spellings__the_most_literal_first() -> None:
    assert spellings('a%20b.jpg') == ['a%20b.jpg', 'a b.jpg']
    assert spellings('http://[broken') == ['http://[broken']


def test_list_tree__follows_links_but_not_in_circles(root: Path) -> None:
    (root / 'images/loop').symlink_to(root)
    (root / 'linked').symlink_to(root / 'images/train')
    names = [path.name for path in list_tree(root).images]
    assert names.count('my photo.png') == 1
