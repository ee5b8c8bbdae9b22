"""Finds the names and the splits of a YOLO folder: data.yaml, obj.data or classes.txt."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effdet_plugin.datasets.readers.documents import read_lines, read_text, read_yaml
from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.numbers import whole
from effdet_plugin.datasets.readers.split_names import split_of_parts
from effdet_plugin.datasets.readers.tree import Tree
from effdet_plugin.datasets.readers.yolo_labels import LabelFiles, is_label_file
from effdet_plugin.datasets.readers.yolo_paths import PathFinder
from effdet_plugin.errors import DatasetError

_KEYS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
_USUAL_STEMS = ('data', 'dataset', 'obj')
_NAME_FILES = ('classes.txt', 'obj.names', 'classes.names', 'labels.txt', 'names.txt')


@dataclass
class YoloLayout:
    """Names and pictures of a YOLO folder.

    Args:
        names: Class names by number; by folder where each has a list of its own (labelImg).
        splits: Pictures by split.
        findings: Noted so far.
        has_keypoints: Rows go on with key points after the box.
    """

    names: dict[Path, dict[int, str]]
    splits: dict[str, list[Path]]
    findings: Findings = field(default_factory=Findings)
    has_keypoints: bool = False

    def classes(self) -> list[str]:
        """All names without doubles, in the order of their numbers."""
        return list(dict.fromkeys(name for table in self.names.values() for name in table.values()))

    def names_for(self, labels: Path) -> dict[int, str]:
        """The names that the numbers of one text file mean: those of the nearest folder above."""
        above = [folder for folder in self.names if folder in labels.parents]
        nearest = max(above, key=lambda folder: len(folder.parts), default=next(iter(self.names)))
        return self.names[nearest]


def choose_described_yolo(tree: Tree) -> YoloLayout | None:
    """The layout that a data.yaml or obj.data describes, None if there is none.

    Raises:
        DatasetError: If there are several, or if what it names is not there.
    """
    yamls = [path for path in tree.with_suffix('.yaml', '.yml') if _is_data_yaml(path)]
    described = yamls or [path for path in tree.with_suffix('.data') if _is_obj_data(path)]
    if not described:
        return None
    depth = min(len(path.parts) for path in described)
    top = [path for path in described if len(path.parts) == depth]
    usual = [path for path in top if path.stem.lower() in _USUAL_STEMS]
    if len(usual or top) > 1:
        names = ' and '.join(tree.short(path) for path in top[:4])
        raise DatasetError(
            f'{tree.root}: {names} describe data sets: choose one with --data {top[0]}'
        )
    return yolo_from_file(tree, (usual or top)[0])


def yolo_from_file(tree: Tree, path: Path) -> YoloLayout:
    """The layout that one data.yaml or obj.data describes.

    Raises:
        DatasetError: If it is damaged, or if names or pictures are not there.
    """
    is_yaml = path.suffix.lower() != '.data'
    document = read_yaml(path) if is_yaml else _read_obj_data(path)
    if not isinstance(document, dict):
        raise DatasetError(f'{path}: no description of a data set (names, train, val)')
    findings = Findings()
    names = _names(tree, path, document, findings)
    layout = YoloLayout({path.parent: names}, {}, findings, has_keypoints='kpt_shape' in document)
    finder = PathFinder(tree, path, document.get('path'), findings)
    if any(key in document for key in _KEYS['train']):
        layout.splits = _described_splits(path, document, finder, findings)
    else:
        layout.splits = splits_by_folder(tree)
    return layout


def choose_plain_yolo(tree: Tree) -> YoloLayout | None:
    """The layout of text files with a list of names and no description, None if there is none.

    Raises:
        DatasetError: If there are text files with boxes and no list of names.
    """
    labels = LabelFiles(tree)
    if not any(path is not None and is_label_file(path) for path in map(labels.of, tree.images)):
        return None
    tables = {
        path.parent: dict(enumerate(_name_lines(path)))
        for path in reversed([*tree.with_suffix('.names'), *tree.named(*_NAME_FILES)])
    }
    if not tables:
        raise DatasetError(
            f'{tree.root}: YOLO text files without class names: put a classes.txt with one name '
            'a line, or a data.yaml, into the folder'
        )
    # The order of the classes is that of the least deep list, the training split's first.
    ordered = sorted(tables, key=lambda folder: (len(folder.parts), _is_other_split(tree, folder)))
    findings = Findings()
    names = {folder: tables[folder] for folder in ordered}
    return YoloLayout(names, _listed_splits(tree, findings) or splits_by_folder(tree), findings)


def _is_other_split(tree: Tree, folder: Path) -> bool:
    return split_of_parts(tree.parts(folder)) in ('val', 'test')


def splits_by_folder(tree: Tree) -> dict[str, list[Path]]:
    """All pictures by what their folders are called; one that says nothing is for training."""
    splits: dict[str, list[Path]] = {'train': []}
    for path in tree.images:
        splits.setdefault(split_of_parts(tree.parts(path)[:-1]) or 'train', []).append(path)
    if not splits['train'] and len(splits) == 2:
        splits = {'train': next(paths for name, paths in splits.items() if name != 'train')}
    return splits


def _listed_splits(tree: Tree, findings: Findings) -> dict[str, list[Path]]:
    """Splits from train.txt, val.txt and test.txt that list pictures (darknet)."""
    splits = {}
    for split, keys in _KEYS.items():
        for path in tree.named(*(f'{key}.txt' for key in keys)):
            if not is_label_file(path):
                finder = PathFinder(tree, path, None, findings)
                splits[split] = finder.pictures(path.name) or []
                break
    return splits if splits.get('train') else {}


def _described_splits(
    path: Path, document: dict[str, Any], finder: PathFinder, findings: Findings
) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for split, keys in _KEYS.items():
        entry = next((document[key] for key in keys if document.get(key)), None)
        if entry is None:
            continue
        pictures = finder.pictures(entry)
        if pictures is None and split == 'train':
            raise DatasetError(f'{path}: {split}: {entry} is not there: correct the path in it')
        if pictures or split == 'train':
            splits[split] = pictures or []
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
    count = whole(document.get('nc'))
    if count is not None and count != len(names):
        findings.add('names_count', tree.short(path), '', _count_said(count, len(names)))
    for name in {name for name in names.values() if list(names.values()).count(name) > 1}:
        findings.add('class_double', tree.short(path), '', name)
    return names


def _count_said(count: int, number_of_names: int) -> str:
    return f'nc says {count}, names has {number_of_names}: names is taken'


def _written_names(tree: Tree, path: Path, written: object) -> dict[int, str]:
    if isinstance(written, dict):
        numbered = {whole(key): str(name).strip() for key, name in written.items()}
        names = {key: numbered[key] for key in sorted(k for k in numbered if k is not None)}
    elif isinstance(written, list):
        names = {number: str(name).strip() for number, name in enumerate(written)}
    else:
        names = dict(enumerate(_names_from_file(tree, path, written)))
    if not names or '' in names.values():
        raise DatasetError(f'{path}: no class names: write them as names: [first, second]')
    return names


def _names_from_file(tree: Tree, path: Path, written: object) -> list[str]:
    wanted = Path(str(written).replace('\\', '/')).name.lower() if written else ''
    found = tree.named(wanted) if wanted else []
    for candidate in found or tree.named(*_NAME_FILES):
        return _name_lines(candidate)
    return [name.strip() for name in str(written).split(',')] if written else []


def _name_lines(path: Path) -> list[str]:
    return [line for line in read_lines(path) if line]
