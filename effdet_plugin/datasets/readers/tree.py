"""The files of a data folder, listed once and sorted by what they may be."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from effdet_plugin.datasets.readers.images import is_image

#: Hidden folders are left alone; coco-annotator alone exports into one.
_HIDDEN_BUT_USED = frozenset({'.exports'})
#: Folders of annotations whose pictures are in the folder above, or beside it.
ANNOTATION_FOLDERS = frozenset({'annotations', 'annotation', 'ann', 'anns', 'labels', '.exports'})
_LEFT_BY_SYSTEMS = frozenset({'__MACOSX', 'Thumbs.db', 'desktop.ini'})
#: Pictures in such folders are drawn from the data, not the data.
_DERIVED = re.compile(r'segmentation(class|object)\w*|masks?|visualizations?|thumbnails|overlays')


@dataclass(frozen=True)
class Tree:
    """The files below a folder, in the order of their names.

    Args:
        root: The folder.
        files: All files that are not hidden.
    """

    root: Path
    files: list[Path]

    @cached_property
    def images(self) -> list[Path]:
        """Files that are pictures by their name and not drawn from others (masks, overlays)."""
        pictures = [path for path in self.files if is_image(path)]
        return [path for path in pictures if not self._is_derived(path)] or pictures

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Files that end in one of the suffixes, whatever their case."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def named(self, *names: str) -> list[Path]:
        """Files of one of the names (lower case), the least deep first."""
        found = [path for path in self.files if path.name.lower() in names]
        return sorted(found, key=lambda path: (len(path.parts), path.as_posix()))

    def parts(self, path: Path) -> tuple[str, ...]:
        """Parts of the path below the root; the whole path if it lies elsewhere."""
        try:
            return path.relative_to(self.root).parts
        except ValueError:
            return path.parts

    def holds(self, path: Path) -> bool:
        """Whether the path lies below the root."""
        return self.root in path.parents

    def short(self, path: Path) -> str:
        """The path as a person names it: below the root where it can be."""
        return '/'.join(self.parts(path))

    def _is_derived(self, path: Path) -> bool:
        return any(_DERIVED.fullmatch(part.lower()) for part in self.parts(path)[:-1])


def list_tree(root: Path) -> Tree:
    """List all files below a folder; links to folders are followed, circles are not."""
    files: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(_is_visible, folders))
        files.extend(Path(folder, name) for name in sorted(filter(_is_visible, names)))
    return Tree(root, files)


def _is_visible(name: str) -> bool:
    if name in _LEFT_BY_SYSTEMS:
        return False
    return not name.startswith('.') or name in _HIDDEN_BUT_USED
