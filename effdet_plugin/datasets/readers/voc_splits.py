"""Which VOC xml belongs to which split."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from effdet_plugin.datasets.readers.documents import read_lines, read_xml
from effdet_plugin.datasets.readers.images import SUFFIXES
from effdet_plugin.datasets.readers.split_names import split_of_parts
from effdet_plugin.datasets.readers.tree import Tree

#: Lists of ``ImageSets/Main``; per-class lists (``cat_train.txt``) are none of them.
_LISTS = {
    'train': ('train.txt', 'training.txt'),
    'val': ('val.txt', 'valid.txt', 'validation.txt'),
    'test': ('test.txt',),
}
_WHOLE_LISTS = ('trainval.txt', 'default.txt')


class Listed(NamedTuple):
    """One picture of a split.

    Args:
        name: As the list has it, or the name of the xml without suffix.
        xml: Its annotation, None where there is none.
        source: The list, or the xml itself.
        split: ``train``, ``val`` or ``test``; None where the data has no splits.
    """

    name: str
    xml: Path | None
    source: Path
    split: str | None


def listed_pictures(tree: Tree) -> dict[str, list[Listed]]:
    """Pictures by split: from ``ImageSets/Main`` where it is there, else from folder names."""
    xmls = tree.with_suffix('.xml')
    lists = [path for path in tree.with_suffix('.txt') if _is_list(path)]
    if lists:
        return _from_lists(xmls, lists)
    found: dict[str, list[Listed]] = {'train': []}
    for xml in xmls:
        if read_xml(xml).tag == 'annotation':
            split = split_of_parts(tree.parts(xml)[:-1])
            found.setdefault(split or 'train', []).append(Listed(xml.stem, xml, xml, split))
    return _with_train(found)


def _with_train(found: dict[str, list[Listed]]) -> dict[str, list[Listed]]:
    if not found['train'] and len(found) == 2:  # a single folder that happens to be called val
        found = {'train': next(entries for name, entries in found.items() if name != 'train')}
    return found


def _is_list(path: Path) -> bool:
    known = {name for names in _LISTS.values() for name in names} | set(_WHOLE_LISTS)
    return path.name.lower() in known and 'imagesets' in {part.lower() for part in path.parts}


def _from_lists(xmls: list[Path], lists: list[Path]) -> dict[str, list[Listed]]:
    found: dict[str, list[Listed]] = {'train': []}
    for folder in sorted({path.parent for path in lists}):
        names = {path.name.lower(): path for path in lists if path.parent == folder}
        for split, path in _splits_of(names).items():
            found.setdefault(split, []).extend(_entries(path, split, xmls))
    return _with_train(found)


def _splits_of(names: dict[str, Path]) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    for split, spellings in _LISTS.items():
        for spelling in spellings:
            if spelling in names:
                chosen.setdefault(split, names[spelling])
    for whole in _WHOLE_LISTS:
        if whole in names and 'train' not in chosen:
            # Without a train list the whole list is what there is to train on.
            chosen['train'] = names[whole]
            chosen.pop('val', None)
    return chosen


def _entries(path: Path, split: str, xmls: Iterable[Path]) -> list[Listed]:
    tree_root = _root_of(path)
    by_stem: dict[str, list[Path]] = {}
    for xml in xmls:
        if tree_root in xml.parents:
            by_stem.setdefault(xml.stem, []).append(xml)
    return [
        Listed(name, _xml_for(name, by_stem), path, split)
        for name in dict.fromkeys(map(_name_of, read_lines(path)))
        if name
    ]


def _root_of(path: Path) -> Path:
    """The folder that holds ``ImageSets``."""
    parents = [parent for parent in path.parents if parent.name.lower() == 'imagesets']
    return parents[0].parent


def _name_of(line: str) -> str:
    """The name on a line, which may be followed by -1, 0 or 1 and may carry a suffix."""
    head, _, last = line.rpartition(' ')
    name = head.strip() if last in ('-1', '0', '1') and head.strip() else line
    stem, dot, suffix = name.rpartition('.')
    return stem if dot and f'.{suffix.lower()}' in SUFFIXES else name


def _xml_for(name: str, by_stem: dict[str, list[Path]]) -> Path | None:
    parts = [part for part in name.replace('\\', '/').split('/') if part]
    matching = by_stem.get(parts[-1], []) if parts else []
    with_folders = [xml for xml in matching if xml.parts[-len(parts) : -1] == tuple(parts[:-1])]
    return next(iter(with_folders or matching), None)
