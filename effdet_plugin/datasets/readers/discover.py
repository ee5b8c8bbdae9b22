"""From a folder or an annotation file to the description of its data."""

from pathlib import Path

from effdet_plugin.datasets.readers.coco import read_coco
from effdet_plugin.datasets.readers.coco_files import choose_coco, coco_from_file
from effdet_plugin.datasets.readers.csv_table import choose_tables, read_tables, table_of
from effdet_plugin.datasets.readers.description import DatasetDescription
from effdet_plugin.datasets.readers.hints import SUPPORTED, nothing_found
from effdet_plugin.datasets.readers.normalise import describe
from effdet_plugin.datasets.readers.raw import RawDataset
from effdet_plugin.datasets.readers.tree import ANNOTATION_FOLDERS, Tree, list_tree
from effdet_plugin.datasets.readers.voc import is_voc, read_voc
from effdet_plugin.datasets.readers.yolo import read_yolo
from effdet_plugin.datasets.readers.yolo_layout import (
    choose_described_yolo,
    choose_plain_yolo,
    yolo_from_file,
)
from effdet_plugin.errors import DatasetError


def read_dataset(path: Path | str) -> DatasetDescription:
    """Read what a person calls their data.

    Args:
        path: A folder with pictures and annotations, or one annotation file (a COCO json, a
            data.yaml, an obj.data or a csv) whose pictures are beside it.

    Returns:
        The description; faults of the data are in its findings, ``check()`` raises them.

    Raises:
        DatasetError: If there are no annotations, if they are damaged, or if it is unclear which
            are meant.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise DatasetError(f'{path}: no such file or folder')
    return describe(_read_folder(path) if path.is_dir() else _read_file(path))


def _read_file(path: Path) -> RawDataset:
    suffix = path.suffix.lower()
    if suffix == '.json':
        chosen = coco_from_file(path)
        if chosen is None:
            raise DatasetError(f'{path}: no COCO detection json (images, annotations, categories)')
        tree, choice = chosen
        return read_coco(tree, choice.files)
    tree = list_tree(path.parent)
    if suffix in ('.yaml', '.yml', '.data'):
        return read_yolo(tree, yolo_from_file(tree, path))
    table = table_of(tree, path) if suffix == '.csv' else None
    if table is None:
        raise DatasetError(f'{path}: no annotation file that is known ({SUPPORTED})')
    return read_tables(tree, [table])


def _read_folder(folder: Path) -> RawDataset:
    tree = list_tree(folder)
    if not tree.images and folder.name.lower() in ANNOTATION_FOLDERS:
        tree = _with_pictures_beside(tree)
    raw = _first_kind(tree)
    if raw is None:
        raise DatasetError(nothing_found(tree))
    if raw.source != 'Pascal VOC' and (xmls := tree.with_suffix('.xml')):
        beside = xmls[0].parent
        detail = f'{len(xmls)} xml files ({raw.source} is read): --data {beside} takes them'
        raw.findings.add('file_unused', tree.root, '', detail)
    return raw


def _with_pictures_beside(annotations: Tree) -> Tree:
    """The folder above a folder of annotations, with these annotations only."""
    tree = list_tree(annotations.root.parent)
    if not annotations.with_suffix('.json', '.xml'):
        return tree  # YOLO rows, whose names are above
    others = set(tree.with_suffix('.json', '.xml', '.csv', '.yaml', '.yml', '.data'))
    others -= set(annotations.files)
    return Tree(tree.root, [path for path in tree.files if path not in others])


def _first_kind(tree: Tree) -> RawDataset | None:
    """The data of the first kind of annotations that is there."""
    coco = choose_coco(tree)
    if coco is not None:
        raw = read_coco(tree, coco.files)
        for path in coco.unused:
            raw.findings.add('file_unused', tree.short(path), '', tree.short(path))
        return raw
    described = choose_described_yolo(tree)
    if described is not None:
        return read_yolo(tree, described)
    if any(map(is_voc, tree.with_suffix('.xml'))):
        return read_voc(tree)
    tables = choose_tables(tree)
    if tables:
        return read_tables(tree, tables)
    plain = choose_plain_yolo(tree)
    return read_yolo(tree, plain) if plain is not None else None
