"""Lists the files of a data folder, and finds the image that a name in an annotation file means."""

import ntpath
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from effdet_plugin.own_data.dataset import RawImage
from effdet_plugin.own_data.findings import Findings
from effdet_plugin.own_data.splits import split_of_parts

Key = TypeVar('Key')
# What may be an image by its name; only the content tells what it really is.
_WORDS = 'jpg jpeg jpe jfif png bmp dib webp tif tiff gif ppm pgm pbm avif jp2'
SUFFIXES = frozenset(f'.{word}' for word in _WORDS.split())
# Folders of annotations whose images are in the folder above, or beside it.
ANNOTATION_FOLDERS = frozenset({'annotations', 'annotation', 'ann', 'anns', 'labels', '.exports'})
_LEFT_BY_SYSTEMS = frozenset({'__MACOSX', 'Thumbs.db', 'desktop.ini'})
# Hidden folders are skipped, but coco-annotator exports into one.
_HIDDEN_BUT_USED = frozenset({'.exports'})
# Images in such folders are drawn from the data and are not the data.
_DERIVED = re.compile(r'segmentation(class|object)\w*|masks?|visualizations?|thumbnails|overlays')
_DRIVE_OR_ROOT = re.compile(r'^(?:[A-Za-z]:)?/+')


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
        """Files that are images by their name and not drawn from others (masks, overlays)."""
        images = [path for path in self.files if path.suffix.lower() in SUFFIXES]
        return [path for path in images if not self._is_derived(path)] or images

    def with_images_of(self, *folders: Path) -> 'Tree':
        """Return a tree whose images are those below other folders; itself without any."""
        if not folders:
            return self
        others = [path for path in self.files if path.suffix.lower() not in SUFFIXES]
        images = (path for folder in folders for path in list_tree(folder).images)
        return Tree(self.root, others + list(dict.fromkeys(images)))

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Return the files that end in one of the suffixes, in upper or lower case."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def named(self, *names: str) -> list[Path]:
        """Return the files of one of the names (lower case), the least deep first."""
        found = [path for path in self.files if path.name.lower() in names]
        return sorted(found, key=lambda path: (len(path.parts), path.as_posix()))

    def parts(self, path: Path) -> tuple[str, ...]:
        """Return the parts of a path below the root; of the full path if it lies elsewhere."""
        inside = path.is_relative_to(self.root)
        return path.relative_to(self.root).parts if inside else path.parts

    def holds(self, path: Path) -> bool:
        """Return whether the path lies below the root."""
        return self.root in path.parents

    def short(self, path: Path) -> str:
        """Return the path for a message: from the root where it can be."""
        return Path(*self.parts(path)).as_posix()

    def _is_derived(self, path: Path) -> bool:
        return any(_DERIVED.fullmatch(part.lower()) for part in self.parts(path)[:-1])


def list_tree(root: Path) -> Tree:
    """List all files below a folder; links to folders are followed, each folder once."""
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


@dataclass(frozen=True)
class Found:
    """The image of a name.

    Args:
        path: Where it is.
        exact: All parts of the name were found, not only the last ones.
        same_suffix: False where only the name without its suffix was found.
    """

    path: Path
    exact: bool = True
    same_suffix: bool = True


class AmbiguousNameError(Exception):
    """More than one image fits a name equally well; the text names them."""


class ImageIndex:
    """The images of a tree by their names.

    Args:
        tree: The data folder.
        elsewhere: Further folders in which a name is tried as written.
        follows: A name may lead out of the folders, as the user has named the file that has it.
    """

    def __init__(
        self, tree: Tree, elsewhere: Iterable[Path] = (), *, follows: bool = False
    ) -> None:
        self._tree = tree
        self._follows = follows
        self._elsewhere = list(elsewhere)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in tree.images:
            self._by_name[name_key(path.name)].append(path)
            self._by_stem[name_key(path.stem)].append(path)

    def find(self, name: str, near: Path, split: str | None = None) -> Found | None:
        """Return the image that a file name of an annotation means.

        Args:
            name: As written: with folders, back-slashes, URL escapes, of another machine.
            near: The annotation file; of equally good images the nearer one is meant.
            split: Of images that are equally good, those of this split are meant.

        Raises:
            AmbiguousNameError: Several images fit equally well.
        """
        names = spellings(name)
        for spelling in names:
            if path := self._as_written(spelling, near):
                return Found(path)
        by_name = [self._by_last_parts(one, near, split, self._by_name) for one in names]
        found = [one for one in by_name if one]
        if found:
            return next((one for one in found if one.exact), found[0])
        by_stem = (self._by_last_parts(one, near, split, self._by_stem) for one in names)
        other = next((one for one in by_stem if one), None)
        return Found(other.path, other.exact, same_suffix=False) if other else None

    def find_stem(self, stem: str, near: Path, split: str | None = None) -> Path | None:
        """Return the image with this name without suffix that is nearest to a file.

        Raises:
            AmbiguousNameError: Several are equally near.
        """
        paths = self._by_stem.get(name_key(stem)) or self._by_name.get(name_key(stem), [])
        return self._nearest(paths, near, split) if paths else None

    def _as_written(self, name: str, near: Path) -> Path | None:
        for folder in (near.parent, *self._elsewhere):
            path = os.path.normpath(folder / name)
            # A name that climbs (../../media/x.jpg) must not lead out of the folder, by chance or
            # by intent, and no absolute one either.
            if os.path.isfile(path) and (
                self._follows or is_inside(Path(path), folder, self._tree.root)
            ):
                return Path(path)
        return None

    def _by_last_parts(
        self, name: str, near: Path, split: str | None, index: dict[str, list[Path]]
    ) -> Found | None:
        plain = ntpath.splitdrive(name)[1] if ':' in name[:2] else name
        *folders, last = plain_parts(plain) or ['']
        paths = index.get(name_key(last if index is self._by_name else Path(last).stem), [])
        if not paths:
            return None
        scores = {path: _shared_tail(folders, self._tree.parts(path)[:-1]) for path in paths}
        best = max(scores.values())
        path = self._nearest([path for path in paths if scores[path] == best], near, split)
        return Found(path, exact=best == len(folders) and not _DRIVE_OR_ROOT.match(name))

    def _nearest(self, paths: list[Path], near: Path, split: str | None) -> Path:
        def distance(path: Path) -> tuple[bool, int]:
            other_split = split is not None and split_of_parts(self._tree.parts(path)[:-1]) != split
            return other_split, -len(os.path.commonpath([near.parent, path.parent]))

        ranked = sorted(paths, key=distance)
        if len(ranked) > 1 and distance(ranked[0]) == distance(ranked[1]):
            raise AmbiguousNameError(' and '.join(self._tree.short(path) for path in ranked[:2]))
        return ranked[0]


class Locator:
    """Finds images and notes how each was found.

    Args:
        tree: The data folder.
        findings: Missing and ambiguous images, and those found by a part of their name.
        elsewhere: See `ImageIndex`.
        follows: See `ImageIndex`.
    """

    def __init__(
        self,
        tree: Tree,
        findings: Findings,
        elsewhere: Iterable[Path] = (),
        *,
        follows: bool = False,
    ) -> None:
        self.index = ImageIndex(tree, elsewhere, follows=follows)
        self._tree = tree
        self._findings = findings
        self._found: dict[tuple[str, str], tuple[str, Found]] = {}

    def locate(
        self, name: str, near: Path, row: str, split: str | None = None, *, quote: bool = True
    ) -> Path | None:
        """Return the image that an annotation file names, None (and a finding) if there is none.

        Args:
            name: As written.
            near: The annotation file.
            row: Where in it.
            split: Of equally good images, those of this split are meant.
            quote: Findings may quote the name.
        """
        file = self._tree.short(near)
        said = name if quote else '(not quoted)'
        try:
            found = self.index.find(name, near, split)
        except AmbiguousNameError as error:
            self._findings.add('image_ambiguous', file, row, f'{said}: {error}')
            return None
        if found is None:
            leads_out = any(os.path.isfile(near.parent / one) for one in spellings(name))
            self._findings.add('image_outside' if leads_out else 'image_missing', file, row, said)
            return None
        self._found[file, row] = name, found
        return found.path

    def without_contested(self, images: dict[Key, RawImage | None]) -> dict[Key, RawImage | None]:
        """Drop images that were found by a part of their path but belong to another entry.

        A missing ``a/1.jpg`` must not become ``b/1.jpg`` when that is named as well.
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
        if len(names) > 1 and not (found.exact and found.same_suffix):
            self._findings.add('image_missing', image.source, image.row, name)
            return None
        if not found.exact:
            self._findings.add('image_found_elsewhere', image.source, image.row, name)
        if not found.same_suffix:
            detail = f'{name} is {self._tree.short(found.path)}'
            self._findings.add('image_other_suffix', image.source, image.row, detail)
        return image


def note_unused(tree: Tree, splits: dict[str, list[RawImage]], findings: Findings) -> None:
    """Note images beside the used ones that no annotation names: not labelled yet, or lost."""
    used = {image.path for images in splits.values() for image in images}
    folders = {path.parent for path in used}
    for path in tree.images:
        if path.parent in folders and path not in used:
            findings.add('image_unused', tree.short(path))


def spellings(name: str) -> list[str]:
    """Return the ways in which a written name may be meant, the most literal first."""
    plain = name.replace('\\', '/').strip()
    found = [name, plain, unquote(plain)]
    if '?' in plain or '://' in plain:
        found += _paths_of_url(plain)
    return list(dict.fromkeys(spelling.removeprefix('./') for spelling in found if spelling))


def plain_parts(name: str) -> list[str]:
    """Return the parts of a path without those that name nothing."""
    return [part for part in name.split('/') if part not in ('', '.', '..')]


def _paths_of_url(text: str) -> list[str]:
    try:
        url = urlsplit(text)
    except ValueError:
        return []
    # Label Studio serves files of a disk as data/local-files/?d=folder/name.jpg.
    return [*map(unquote, parse_qs(url.query).get('d', [])), unquote(url.path)]


def name_key(name: str) -> str:
    """Return what names have in common that mean the same file.

    A Mac decomposes letters in file names and labelling tools compose them; some tools
    percent-encode the names of what they export.
    """
    return unicodedata.normalize('NFC', unquote(name)).casefold()


def is_inside(path: Path, *folders: Path) -> bool:
    """Return whether a path lies below one of the folders, also one whose links are resolved."""
    if any(path.is_relative_to(folder) for folder in folders):
        return True
    real = os.path.realpath(path)
    return any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders)


def _shared_tail(first: Iterable[str], second: Iterable[str]) -> int:
    shared = 0
    for one, other in zip(reversed(list(first)), reversed(list(second)), strict=False):
        if name_key(one) != name_key(other):
            break
        shared += 1
    return shared
