"""Finds the class names and splits of a YOLO folder: data.yaml, obj.data or classes.txt."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_text
from effdet_plugin.own_data.documents import read_lines, read_yaml, whole_number
from effdet_plugin.own_data.find_images import (
    SUFFIXES,
    Locator,
    Tree,
    is_inside,
    list_tree,
    plain_parts,
    spellings,
)
from effdet_plugin.own_data.findings import Findings
from effdet_plugin.own_data.splits import split_of_parts, with_train
from effdet_plugin.own_data.yolo import LabelFiles, YoloLayout, is_label_file

_KEYS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
_USUAL_STEMS = ('data', 'dataset', 'obj')
_NAME_FILES = ('classes.txt', 'obj.names', 'classes.names', 'labels.txt', 'names.txt')


def choose_described_yolo(tree: Tree) -> YoloLayout | None:
    """Return the layout that a data.yaml or obj.data describes, None if there is none.

    Raises:
        DatasetError: There are several, or what it names is missing.
    """
    described = [path for path in tree.with_suffix('.yaml', '.yml') if _is_data_yaml(path)]
    described = described or [path for path in tree.with_suffix('.data') if _is_obj_data(path)]
    if not described:
        return None
    depth = min(len(path.parts) for path in described)
    top = [path for path in described if len(path.parts) == depth]
    usual = [path for path in top if path.stem.lower() in _USUAL_STEMS]
    if len(usual or top) > 1:
        names = ' and '.join(tree.short(path) for path in top[:4])
        raise DatasetError(
            f'{tree.root}: {names} describe datasets: choose one with --data {top[0]}'
        )
    return yolo_from_file(tree, (usual or top)[0])


def yolo_from_file(tree: Tree, path: Path, *, follows: bool = False) -> YoloLayout:
    """Return the layout that one data.yaml or obj.data describes.

    Args:
        tree: The data folder.
        path: The description.
        follows: Paths in it may lead out of the folder, as the user has named the file itself.

    Raises:
        DatasetError: It is damaged, or names or images are missing.
    """
    document = _read_obj_data(path) if path.suffix.lower() == '.data' else read_yaml(path)
    if not isinstance(document, dict):
        raise DatasetError(f'{path}: no description of a dataset (names, train, val)')
    findings = Findings()
    names = _names(tree, path, document, findings)
    layout = YoloLayout({path.parent: names}, {}, findings, has_keypoints='kpt_shape' in document)
    if any(key in document for key in _KEYS['train']):
        finder = _PathFinder(tree, path, document.get('path'), findings, follows=follows)
        layout.splits = _described_splits(path, document, finder, findings)
    else:
        layout.splits = _splits_by_folder(tree)
    return layout


def choose_plain_yolo(tree: Tree) -> YoloLayout | None:
    """Return the layout of text files with a list of names, without a description; else None.

    Raises:
        DatasetError: There are text files with boxes and no list of names.
    """
    labels = LabelFiles(tree)
    if not any(path is not None and is_label_file(path) for path in map(labels.of, tree.images)):
        return None
    tables = {
        path.parent: dict(enumerate(filter(None, read_lines(path))))
        for path in reversed([*tree.with_suffix('.names'), *tree.named(*_NAME_FILES)])
    }
    if not tables:
        raise DatasetError(
            f'{tree.root}: YOLO text files without class names: put a classes.txt with one name '
            'a line, or a data.yaml, into the folder'
        )

    def depth_and_split(folder: Path) -> tuple[int, bool]:
        return len(folder.parts), split_of_parts(tree.parts(folder)) in ('val', 'test')

    # The order of the classes is that of the least deep list, the training split's first.
    names = {folder: tables[folder] for folder in sorted(tables, key=depth_and_split)}
    findings = Findings()
    return YoloLayout(names, _listed_splits(tree, findings) or _splits_by_folder(tree), findings)


def _splits_by_folder(tree: Tree) -> dict[str, list[Path]]:
    """Return all images by the names of their folders; a name without a split is for training."""
    splits: dict[str, list[Path]] = {'train': []}
    for path in tree.images:
        splits.setdefault(split_of_parts(tree.parts(path)[:-1]) or 'train', []).append(path)
    return with_train(splits)


def _listed_splits(tree: Tree, findings: Findings) -> dict[str, list[Path]]:
    """Return the splits of train.txt, val.txt and test.txt that list images (darknet)."""
    splits = {}
    for split, keys in _KEYS.items():
        for path in tree.named(*(f'{key}.txt' for key in keys)):
            if not is_label_file(path):
                finder = _PathFinder(tree, path, None, findings)
                splits[split] = finder.images(path.name) or []
                break
    return splits if splits.get('train') else {}


def _described_splits(
    path: Path, document: dict[str, Any], finder: '_PathFinder', findings: Findings
) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for split, keys in _KEYS.items():
        entry = next((document[key] for key in keys if document.get(key)), None)
        if entry is None:
            continue
        images = finder.images(entry)
        if images is None and split == 'train':
            raise DatasetError(f'{path}: {split}: {entry} does not exist: correct the path in it')
        if images or split == 'train':
            splits[split] = images or []
        else:
            findings.add('split_empty', path.name, '', split)
    return splits


def _is_data_yaml(path: Path) -> bool:
    try:
        text = read_text(path)
        document = read_yaml(path) if 'names' in text or 'train' in text else None
    except DatasetError:
        if path.stem.lower() in _USUAL_STEMS:
            raise
        return False  # another program's file
    return isinstance(document, dict) and ('names' in document or {'train', 'nc'} <= set(document))


def _is_obj_data(path: Path) -> bool:
    try:
        return {'names', 'train'} <= _read_obj_data(path).keys()
    except DatasetError:
        return False


def _read_obj_data(path: Path) -> dict[str, str]:
    pairs = (line.partition('=') for line in read_lines(path))
    found = {key.strip(): value.strip() for key, sign, value in pairs if sign}
    return {('nc' if key == 'classes' else key): value for key, value in found.items()}


def _names(tree: Tree, path: Path, document: dict[str, Any], findings: Findings) -> dict[int, str]:
    names = _written_names(tree, path, document.get('names'))
    if not names or '' in names.values():
        raise DatasetError(f'{path}: no class names: write them as names: [first, second]')
    count = whole_number(document.get('nc'))
    if count is not None and count != len(names):
        remark = f'nc says {count}, names has {len(names)}: names is taken'
        findings.add('names_count', tree.short(path), '', remark)
    for name in (name for name, times in Counter(names.values()).items() if times > 1):
        findings.add('class_double', tree.short(path), '', name)
    return names


def _written_names(tree: Tree, path: Path, written: object) -> dict[int, str]:
    if isinstance(written, dict):
        numbered = {whole_number(key): str(name).strip() for key, name in written.items()}
        return {key: numbered[key] for key in sorted(k for k in numbered if k is not None)}
    if isinstance(written, list):
        return {number: str(name).strip() for number, name in enumerate(written)}
    # The name of a file, or names in one line.
    wanted = Path(str(written).replace('\\', '/')).name.lower() if written else ''
    for file in tree.named(wanted) or tree.named(*_NAME_FILES):
        return dict(enumerate(filter(None, read_lines(file))))
    return dict(enumerate(name.strip() for name in str(written or '').split(',')))


class _PathFinder:
    """Resolves entries: folders, lists of folders, text files that list images.

    Args:
        tree: The data folder.
        description: The file that has the entries.
        base: Its ``path`` key, if it has one.
        findings: Missing images of a list are noted here.
        follows: See `yolo_from_file`.
    """

    def __init__(
        self,
        tree: Tree,
        description: Path,
        base: object,
        findings: Findings,
        *,
        follows: bool = False,
    ) -> None:
        self._tree = tree
        self._description = description
        self._findings = findings
        self._follows = follows
        self._bases = [description.parent]
        if isinstance(base, str) and base:
            self._bases = [description.parent / plain for plain in spellings(base)] + self._bases
        self._locator = Locator(tree, findings, follows=follows)

    def images(self, entry: object) -> list[Path] | None:
        """Return all images of an entry in the order of their names, None if it is missing."""
        if isinstance(entry, list):
            parts = [self.images(one) for one in entry]
            if None in parts:
                return None
            return list(dict.fromkeys(path for part in parts for path in part or []))
        place = self._find(str(entry))
        if place is None:
            return None
        if place.is_dir():
            inside = place.is_relative_to(self._tree.root)
            images = (self._tree if inside else list_tree(place)).images
            return [path for path in images if place in path.parents]
        return [place] if place.suffix.lower() in SUFFIXES else self._listed(place)

    def _find(self, entry: str) -> Path | None:
        """Return the folder or file of an entry: inside the data folder if possible."""
        names = spellings(entry)
        literal = [Path(os.path.normpath(base / name)) for base in self._bases for name in names]
        inside = [path for path in literal if path.is_relative_to(self._tree.root)]
        absolute = [Path(name) for name in names if name.startswith('/')]
        # ../train/images of Roboflow, name/train/images of its downloads, D:\data\train\images.
        parts = plain_parts(names[-1])
        by_last_parts = [
            base.joinpath(*parts[first:])
            for first in range(len(parts))
            for base in (self._bases[-1], self._tree.root)
        ]
        there = [
            path for path in (*inside, *absolute, *by_last_parts, *literal) if os.path.exists(path)
        ]
        if within := [path for path in there if is_inside(path, self._tree.root)]:
            return within[0]
        if there and not self._follows:
            raise DatasetError(
                f'{self._description}: {entry} leads out of the data folder: give --data '
                f'{self._description} to follow it, or put a link into the folder'
            )
        if there:
            detail = f'{entry}, outside of the folder of this file'
            self._findings.add('path_followed', self._description.name, '', detail)
        return next(iter(there), None)

    def _listed(self, place: Path) -> list[Path]:
        # Nothing is quoted from a file elsewhere, which may be no list of images at all.
        is_ours = is_inside(place, self._tree.root)
        found = [
            self._locator.locate(line, place, f'line {row}', quote=is_ours)
            for row, line in enumerate(read_lines(place), start=1)
            if line
        ]
        return list(dict.fromkeys(path for path in found if path is not None))
