"""Finds the picture that a name in an annotation file means."""

import ntpath
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from effdet_plugin.datasets.readers.split_names import split_of_parts
from effdet_plugin.datasets.readers.tree import Tree

_DRIVE_OR_ROOT = re.compile(r'^(?:[A-Za-z]:)?/+')


@dataclass(frozen=True)
class Found:
    """A picture for a name.

    Args:
        path: Where it is.
        whole: All parts of the name were found, not only the last ones.
        same_suffix: False where only the name without its suffix was found.
    """

    path: Path
    whole: bool = True
    same_suffix: bool = True


class AmbiguousNameError(Exception):
    """More than one picture fits a name equally well; the text names them."""


class ImageIndex:
    """Pictures of a tree by their names.

    Args:
        tree: The data folder.
        elsewhere: Further folders in which a name is tried as it stands.
    """

    def __init__(self, tree: Tree, elsewhere: Iterable[Path] = ()) -> None:
        self._tree = tree
        self._elsewhere = list(elsewhere)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in tree.images:
            self._by_name[_key(path.name)].append(path)
            self._by_stem[_key(path.stem)].append(path)

    def find(self, name: str, near: Path, split: str | None = None) -> Found | None:
        """The picture that a file name of an annotation means.

        Args:
            name: As written: with folders, back-slashes, URL escapes, of another machine.
            near: The annotation file; of equally good pictures the nearer one is meant.
            split: Of pictures that are equally good, those of this split are meant.

        Raises:
            AmbiguousNameError: If several pictures fit equally well.
        """
        ways = spellings(name)
        for spelling in ways:
            literal = self._literal(spelling, near)
            if literal:
                return literal
        found = [self._by_last_parts(spelling, near, split, self._by_name) for spelling in ways]
        best = next((one for one in found if one and one.whole), None)
        best = best or next((one for one in found if one), None)
        if best:
            return best
        by_stem = (self._by_last_parts(spelling, near, split, self._by_stem) for spelling in ways)
        other = next((one for one in by_stem if one), None)
        return Found(other.path, other.whole, same_suffix=False) if other else None

    def find_stem(self, stem: str, near: Path, split: str | None = None) -> Path | None:
        """The picture with this name without suffix that is nearest to a file.

        Raises:
            AmbiguousNameError: If several are equally near.
        """
        paths = self._by_stem.get(_key(stem)) or self._by_name.get(_key(stem), [])
        return self._nearest(paths, near, split) if paths else None

    def _literal(self, name: str, near: Path) -> Found | None:
        for folder in (near.parent, *self._elsewhere):
            path = os.path.normpath(folder / name)
            # A name that climbs (../../media/x.jpg) must not lead out of the folder by chance.
            climbs_out = '..' in name.split('/') and not self._tree.holds(Path(path))
            if not climbs_out and os.path.isfile(path):
                return Found(Path(path))
        return None

    def _by_last_parts(
        self, name: str, near: Path, split: str | None, index: dict[str, list[Path]]
    ) -> Found | None:
        parts = _plain_parts(name)
        if not parts:
            return None
        last = parts[-1] if index is self._by_name else Path(parts[-1]).stem
        paths = index.get(_key(last), [])
        if not paths:
            return None
        scores = {path: _shared_tail(parts[:-1], self._tree.parts(path)[:-1]) for path in paths}
        best = max(scores.values())
        path = self._nearest([path for path in paths if scores[path] == best], near, split)
        absolute = bool(_DRIVE_OR_ROOT.match(name))
        return Found(path, whole=best == len(parts) - 1 and not absolute)

    def _nearest(self, paths: list[Path], near: Path, split: str | None) -> Path:
        def distance(path: Path) -> tuple[bool, int]:
            folders = self._tree.parts(path)[:-1]
            other_split = split is not None and split_of_parts(folders) != split
            return other_split, -_shared_head(near.parent.parts, path.parent.parts)

        ranked = sorted(paths, key=distance)
        if len(ranked) > 1 and distance(ranked[0]) == distance(ranked[1]):
            raise AmbiguousNameError(' and '.join(self._tree.short(path) for path in ranked[:2]))
        return ranked[0]


def spellings(name: str) -> list[str]:
    """The ways in which a written name may be meant, the most literal first."""
    plain = name.replace('\\', '/').strip()
    found = [name, plain, unquote(plain)]
    if '?' in plain or '://' in plain:
        found += _paths_of_url(plain)
    return list(dict.fromkeys(_without_dot(spelling) for spelling in found if spelling))


def _paths_of_url(text: str) -> list[str]:
    try:
        url = urlsplit(text)
    except ValueError:
        return []
    # Label Studio serves files of a disk as data/local-files/?d=folder/name.jpg.
    return [*map(unquote, parse_qs(url.query).get('d', [])), unquote(url.path)]


def _without_dot(name: str) -> str:
    return name[2:] if name.startswith('./') else name


def _plain_parts(name: str) -> list[str]:
    name = ntpath.splitdrive(name)[1] if ':' in name[:2] else name
    return [part for part in name.split('/') if part not in ('', '.', '..')]


def _key(name: str) -> str:
    # A Mac decomposes letters in file names, labelling tools compose them.
    return unicodedata.normalize('NFC', name).casefold()


def _shared_tail(first: Iterable[str], second: Iterable[str]) -> int:
    shared = 0
    for one, other in zip(reversed(list(first)), reversed(list(second)), strict=False):
        if _key(one) != _key(other):
            break
        shared += 1
    return shared


def _shared_head(first: Iterable[str], second: Iterable[str]) -> int:
    shared = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        shared += 1
    return shared
