"""Reads a dataset from a folder or an annotation file, whichever labelling tool wrote it."""

from collections import Counter
from pathlib import Path
from typing import Any

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_json
from effdet_plugin.own_data.coco import read_coco
from effdet_plugin.own_data.coco_files import choose_coco, coco_from_file
from effdet_plugin.own_data.csv_table import choose_tables, read_tables, table_of
from effdet_plugin.own_data.dataset import DatasetDescription, RawDataset
from effdet_plugin.own_data.documents import read_xml
from effdet_plugin.own_data.find_images import ANNOTATION_FOLDERS, Tree, list_tree
from effdet_plugin.own_data.normalise import describe
from effdet_plugin.own_data.voc import is_voc, read_voc
from effdet_plugin.own_data.yolo import read_yolo
from effdet_plugin.own_data.yolo_layout import (
    choose_described_yolo,
    choose_plain_yolo,
    yolo_from_file,
)

_SUPPORTED = 'COCO json, Pascal VOC xml, YOLO txt with data.yaml or classes.txt, or a csv of boxes'
# Beside the folder of a json that has no images of its own.
_IMAGE_FOLDERS = (
    *('images', 'Images', 'JPEGImages', 'img', 'imgs', 'data', 'train', 'val', 'test'),
    *('train2017', 'val2017', 'test2017'),
)
# Annotations that are not read, by suffix, by an xml's root and by the keys of a json.
_OTHER_SUFFIXES = {
    '.tfrecord': 'TFRecord files',
    '.record': 'TFRecord files',
    '.zip': 'a zip file (unpack it first)',
    '.parquet': 'parquet files',
    '.jsonl': 'json lines',
}
_OTHER_XML = {'annotations': 'CVAT xml', 'dataset': 'dlib (imglab) xml'}
_OTHER_JSON = {
    'labelme json': {'shapes', 'imagePath'},
    "Label Studio's own json": {'annotations', 'data'},
    'CreateML json': {'annotations', 'image'},
    'Datumaro json': {'items', 'categories'},
    'a VIA project': {'_via_img_metadata'},
    'VoTT json': {'asset', 'regions'},
    'a VoTT project': {'assets', 'tags'},
}


def read_dataset(path: Path | str, images: Path | None = None) -> DatasetDescription:
    """Read the images, boxes, classes and splits of a dataset.

    Args:
        path: A folder with images and annotations, or one annotation file (a COCO json, a
            data.yaml, an obj.data or a csv) whose images are beside it.
        images: Folder of the images, where they are elsewhere.

    Returns:
        The description; faults of the data are in its findings, ``check()`` raises them.

    Raises:
        DatasetError: There are no annotations, they are damaged, or it is unclear which are meant.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise DatasetError(f'{path}: no such file or folder')
    if images is not None and not images.is_dir():
        raise DatasetError(f'{images}: there is no such folder of images')
    elsewhere = [] if images is None else [images.absolute()]
    if path.is_dir():
        return describe(_read_folder(path, elsewhere))
    return describe(_read_file(path, elsewhere))


def _read_file(path: Path, elsewhere: list[Path]) -> RawDataset:
    suffix = path.suffix.lower()
    if suffix == '.json':
        tree, files = coco_from_file(path)
        if not tree.images and not elsewhere:
            above = tree.root.parent
            elsewhere = [above / name for name in _IMAGE_FOLDERS if (above / name).is_dir()]
        return read_coco(tree.with_images_of(*elsewhere), files)
    tree = list_tree(path.parent).with_images_of(*elsewhere)
    if suffix in ('.yaml', '.yml', '.data'):
        return read_yolo(tree, yolo_from_file(tree, path, follows=True))
    table = table_of(tree, path) if suffix == '.csv' else None
    if table is None:
        raise DatasetError(f'{path}: no known annotation file ({_SUPPORTED})')
    return read_tables(tree, [table])


def _read_folder(folder: Path, elsewhere: list[Path]) -> RawDataset:
    tree = list_tree(folder).with_images_of(*elsewhere)
    if not tree.images and folder.name.lower() in ANNOTATION_FOLDERS:
        tree = _with_images_beside(tree)
    raw = _read_first_format(tree)
    if raw is None:
        raise DatasetError(_nothing_found(tree))
    if raw.source != 'Pascal VOC' and (xmls := tree.with_suffix('.xml')):
        beside = xmls[0].parent
        detail = f'{len(xmls)} xml files ({raw.source} is read): --data {beside} takes them'
        raw.findings.add('file_unused', tree.root, '', detail)
    return raw


def _with_images_beside(annotations: Tree) -> Tree:
    """Return the folder above a folder of annotations, with these annotations only."""
    tree = list_tree(annotations.root.parent)
    if not annotations.with_suffix('.json', '.xml'):
        return tree  # YOLO rows, whose names are above
    others = set(tree.with_suffix('.json', '.xml', '.csv', '.yaml', '.yml', '.data'))
    others -= set(annotations.files)
    return Tree(tree.root, [path for path in tree.files if path not in others])


def _read_first_format(tree: Tree) -> RawDataset | None:
    """Return the data of the first format that is there, None without any."""
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


def _nothing_found(tree: Tree) -> str:
    """Return one line for a folder without known annotations: what it has, what can be read."""
    if not tree.files:
        return f'{tree.root}: the folder is empty: no annotations and no images'
    other = next(filter(None, map(_other_format, tree.files)), '')
    advice = f'; it has {other}: export them in one of these formats' if other else ''
    suffixes = Counter(path.suffix.lower() or path.name for path in tree.files)
    seen = ', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common(4))
    return (
        f'{tree.root}: found no annotations of a known format ({_SUPPORTED}) among {seen}{advice}'
    )


def _other_format(path: Path) -> str:
    """Return the format of a file, '' for an unknown one."""
    suffix = path.suffix.lower()
    try:
        if suffix == '.json':
            return _other_json(read_json(path))
        if suffix == '.xml':
            return _OTHER_XML.get(read_xml(path).tag, '')
    except DatasetError as error:
        return f'a damaged file ({error})'
    return _OTHER_SUFFIXES.get(suffix, '')


def _other_json(document: Any) -> str:
    first = document[0] if isinstance(document, list) and document else document
    keys = set(first) if isinstance(first, dict) else set()
    return next((name for name, needed in _OTHER_JSON.items() if needed <= keys), '')
