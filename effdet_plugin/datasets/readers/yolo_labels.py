"""Which text file holds the objects of a picture."""

from collections import Counter, defaultdict
from pathlib import Path

from effdet_plugin.datasets.readers.documents import read_lines
from effdet_plugin.datasets.readers.numbers import number
from effdet_plugin.datasets.readers.tree import Tree
from effdet_plugin.errors import DatasetError


class LabelFiles:
    """The text files of a tree by the picture that they belong to.

    Args:
        tree: The data folder.
    """

    def __init__(self, tree: Tree) -> None:
        self._files = set(tree.with_suffix('.txt'))
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._images = set(tree.images)
        self._stems = Counter(path.stem for path in tree.images)
        for path in self._files:
            self._by_stem[path.stem].append(path)

    def of(self, image: Path) -> Path | None:
        """The text file of a picture, None if it has none.

        ``images`` becomes ``labels`` in the path; else it stands beside the picture; else the
        only text file of its name is it.
        """
        for path in self._usual(image):
            if path in self._files or (image not in self._images and path.is_file()):
                return path
        only = self._by_stem.get(image.stem, [])
        return only[0] if len(only) == 1 and self._stems[image.stem] == 1 else None

    def orphans(self, read: set[Path]) -> list[Path]:
        """Text files with objects, beside those that were read, whose picture is not there."""
        folders = {path.parent for path in read}
        return [
            path
            for path in sorted(self._files - read)
            if path.parent in folders and path.stem not in self._stems and is_label_file(path)
        ]

    def _usual(self, image: Path) -> list[Path]:
        name = f'{image.stem}.txt'
        parts = image.parts
        swapped = [
            Path(*parts[:at], 'labels', *parts[at + 1 : -1], name)
            for at in range(len(parts) - 2, -1, -1)
            if parts[at].lower() in ('images', 'jpegimages', 'img', 'imgs')
        ]
        folder = image.parent
        return [
            *swapped[:1],
            folder / name,
            folder / 'labels' / name,
            folder.parent / 'labels' / name,
            folder.parent / 'labels' / folder.name / name,
        ]


def is_label_file(path: Path) -> bool:
    """Whether every row of a text file is a class number and four or more numbers."""
    try:
        rows = [line.split() for line in read_lines(path) if line]
    except DatasetError:
        return False
    return bool(rows) and all(
        len(row) >= 5 and all(number(word) is not None for word in row) for row in rows
    )
