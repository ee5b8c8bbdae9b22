"""Finds pictures for annotations and notes how they were found."""

from pathlib import Path
from typing import TypeVar

from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.image_index import AmbiguousNameError, Found, ImageIndex
from effdet_plugin.datasets.readers.raw import RawImage
from effdet_plugin.datasets.readers.tree import Tree

Key = TypeVar('Key')


class Locator:
    """An index of pictures with a notebook.

    Args:
        tree: The data folder.
        index: Its pictures.
        findings: Missing, ambiguous and oddly found pictures are noted here.
    """

    def __init__(self, tree: Tree, index: ImageIndex, findings: Findings) -> None:
        self._tree = tree
        self._index = index
        self._findings = findings
        self._found: dict[tuple[str, str], tuple[str, Found]] = {}

    def locate(self, name: str, near: Path, row: str, split: str | None = None) -> Path | None:
        """The picture that an annotation file names, None (and a finding) if it is not there.

        Args:
            name: As written.
            near: The annotation file.
            row: Where in it.
            split: Of equally good pictures, those of this split are meant.
        """
        file = self._tree.short(near)
        try:
            found = self._index.find(name, near, split)
        except AmbiguousNameError as error:
            self._findings.add('image_ambiguous', file, row, f'{name}: {error}')
            return None
        if found is None:
            self._findings.add('image_missing', file, row, name)
            return None
        self._found[file, row] = name, found
        return found.path

    def without_contested(self, images: dict[Key, RawImage | None]) -> dict[Key, RawImage | None]:
        """Drop pictures that were found by a part of their path but belong to another entry.

        ``a/1.jpg`` that is missing must not become ``b/1.jpg`` when that is named as well.
        Notes how the others were found.
        """
        names: dict[Path, set[str]] = {}
        for image in filter(None, images.values()):
            names.setdefault(image.path, set()).add(self._found[image.source, image.row][0])
        return {
            key: self._kept(image, names[image.path]) if image else None
            for key, image in images.items()
        }

    def _kept(self, image: RawImage, names: set[str]) -> RawImage | None:
        name, found = self._found[image.source, image.row]
        if len(names) > 1 and not (found.whole and found.same_suffix):
            self._findings.add('image_missing', image.source, image.row, name)
            return None
        if not found.whole:
            self._findings.add('image_found_elsewhere', image.source, image.row, name)
        if not found.same_suffix:
            detail = f'{name} is {self._tree.short(found.path)}'
            self._findings.add('image_other_suffix', image.source, image.row, detail)
        return image


def note_unused(tree: Tree, splits: dict[str, list[RawImage]], findings: Findings) -> None:
    """Note pictures beside the used ones that no annotation names: not labelled yet, or lost."""
    used = {image.path for images in splits.values() for image in images}
    folders = {path.parent for path in used}
    for path in tree.images:
        if path.parent in folders and path not in used:
            findings.add('image_unused', tree.short(path))
