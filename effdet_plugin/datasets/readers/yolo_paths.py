"""Finds the pictures that an entry of a data.yaml or a list of pictures means."""

import os
from pathlib import Path

from effdet_plugin.datasets.readers.documents import read_lines
from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.image_index import ImageIndex, spellings
from effdet_plugin.datasets.readers.images import is_image
from effdet_plugin.datasets.readers.locate import Locator
from effdet_plugin.datasets.readers.tree import Tree, list_tree


class PathFinder:
    """Resolves entries: folders, lists of folders, text files that list pictures.

    Args:
        tree: The data folder.
        description: The file that has the entries.
        base: Its ``path`` key, if it has one.
        findings: Pictures of a list that are not there are noted here.
    """

    def __init__(self, tree: Tree, description: Path, base: object, findings: Findings) -> None:
        self._tree = tree
        self._bases = [description.parent]
        if isinstance(base, str) and base:
            self._bases = [description.parent / plain for plain in spellings(base)] + self._bases
        self._findings = findings
        self._index = ImageIndex(tree)

    def pictures(self, entry: object) -> list[Path] | None:
        """All pictures of an entry in the order of their names, None if nothing is there."""
        if isinstance(entry, list):
            parts = [self.pictures(one) for one in entry]
            if None in parts:
                return None
            return list(dict.fromkeys(path for part in parts for path in part or []))
        place = self._place(str(entry))
        if place is None:
            return None
        if place.is_dir():
            inside = self._tree if place == self._tree.root or self._tree.holds(place) else None
            images = (inside or list_tree(place)).images
            return [path for path in images if place in path.parents]
        return [place] if is_image(place) else self._listed(place)

    def _place(self, entry: str) -> Path | None:
        """The folder or file of an entry: inside the data folder if it can be."""
        literal = [
            Path(os.path.normpath(base / plain))
            for base in self._bases
            for plain in spellings(entry)
        ]
        inside = [path for path in literal if path == self._tree.root or self._tree.holds(path)]
        absolute = [Path(plain) for plain in spellings(entry) if plain.startswith('/')]
        for path in (*inside, *absolute, *self._by_last_parts(entry), *literal):
            if os.path.exists(path):
                return path
        return None

    def _by_last_parts(self, entry: str) -> list[Path]:
        # ../train/images of Roboflow, name/train/images of its downloads, D:\data\train\images.
        plain = spellings(entry)[-1]
        parts = [part for part in plain.split('/') if part not in ('', '.', '..')]
        return [
            base.joinpath(*parts[at:])
            for at in range(len(parts))
            for base in (self._bases[-1], self._tree.root)
        ]

    def _listed(self, place: Path) -> list[Path]:
        locator = Locator(self._tree, self._index, self._findings)
        found = [
            locator.locate(line, place, f'line {row}')
            for row, line in enumerate(read_lines(place), start=1)
            if line
        ]
        return list(dict.fromkeys(path for path in found if path is not None))
