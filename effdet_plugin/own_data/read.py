"""Reads a dataset from a folder or an annotation file, whichever labelling tool wrote it."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_json, read_text
from effdet_plugin.own_data.coco import CocoFile, read_coco
from effdet_plugin.own_data.csv_table import choose_tables, read_tables, table_of
from effdet_plugin.own_data.dataset import DatasetDescription, RawDataset
from effdet_plugin.own_data.documents import read_xml
from effdet_plugin.own_data.find_images import ANNOTATION_FOLDERS, Tree, list_tree
from effdet_plugin.own_data.normalise import describe
from effdet_plugin.own_data.splits import split_of_parts, with_train
from effdet_plugin.own_data.voc import is_voc, read_voc
from effdet_plugin.own_data.write import WRITTEN_INFO
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
# Files of the original tree that are beside ``instances_*`` and are no detection files.
_OTHER_TASKS = (
    'captions_', 'person_keypoints_', 'stuff_', 'panoptic_', 'image_info_', 'labels_',
)  # fmt: skip


class CocoChoice(NamedTuple):
    """The json of each split, and those that are left over."""

    files: dict[str, CocoFile]
    unused: list[Path]


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
    if tree.with_suffix('.csv') and (tables := choose_tables(tree)):
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


def choose_coco(tree: Tree) -> CocoChoice | None:
    """Return the COCO jsons of a folder by split, None if there are none.

    Raises:
        DatasetError: A json is damaged, or it is unclear which one is meant.
    """
    loaded = [file for file in map(_load, _candidates(tree)) if file is not None]
    # A work dir below the data folder holds what an earlier run has written.
    files = [file for file in loaded if file.document.get('info') != WRITTEN_INFO]
    by_split: dict[str | None, list[CocoFile]] = {}
    for file in files:
        parts = tree.parts(file.path)
        by_split.setdefault(split_of_parts((*parts[:-1], file.path.stem)), []).append(file)
    return _assign(tree, by_split) if files else None


def coco_from_file(path: Path) -> tuple[Tree, dict[str, CocoFile]]:
    """Return a single json that was named by the user, and the folder that holds its images.

    Raises:
        DatasetError: It is damaged or no COCO detection json.
    """
    file = _load(path)
    if file is None:
        raise DatasetError(f'{path}: no COCO detection json (images, annotations, categories)')
    folder = path.parent
    root = folder.parent if folder.name.lower() in ANNOTATION_FOLDERS else folder
    return list_tree(root), {'train': file}


def _candidates(tree: Tree) -> list[Path]:
    paths = tree.with_suffix('.json')
    with_instances = {path.parent for path in paths if path.name.startswith('instances_')}
    return [
        path
        for path in paths
        if not (path.parent in with_instances and path.name.startswith(_OTHER_TASKS))
    ]


def _load(path: Path) -> CocoFile | None:
    """Return the json if it is a detection file.

    Raises:
        DatasetError: It is damaged and was one.
    """
    try:
        document = read_json(path)
    except DatasetError:
        text = read_text(path)  # raises for a file that is no text at all
        if '"images"' in text or '"annotations"' in text:
            raise
        return None
    return CocoFile(path, document) if _is_detection(document) else None


def _is_detection(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    annotations = document.get('annotations')
    images = document.get('images')
    if isinstance(annotations, list) and annotations and isinstance(annotations[0], dict):
        # Captions have neither a box nor a category, panoptic files have segments.
        boxes = {'bbox', 'category_id', 'segmentation'} & annotations[0].keys()
        return bool(boxes) and ('images' in document or 'categories' in document)
    return isinstance(images, list) and bool(images or 'categories' in document)


def _assign(tree: Tree, by_split: dict[str | None, list[CocoFile]]) -> CocoChoice:
    everything = [file for files in by_split.values() for file in files]
    unnamed = by_split.pop(None, [])
    chosen = {name: files[0] for name, files in by_split.items() if name and len(files) == 1}
    unclear = len(chosen) < len(by_split)
    if 'train' not in chosen and not unclear and len(unnamed) == 1:
        chosen['train'], unnamed = unnamed[0], []
    if not unclear and not unnamed:
        chosen = with_train(chosen)
    if unclear or 'train' not in chosen:
        raise DatasetError(_how_to_choose(tree, everything))
    order = [name for name in ('train', 'val', 'test') if name in chosen]
    return CocoChoice({name: chosen[name] for name in order}, [file.path for file in unnamed])


def _how_to_choose(tree: Tree, files: list[CocoFile]) -> str:
    names = ' and '.join(tree.short(file.path) for file in files[:4])
    more = f' and {len(files) - 4} more' if len(files) > 4 else ''
    largest = max(files, key=lambda file: len(file.document.get('images') or []))
    first = tree.short(largest.path)
    return (
        f'{tree.root}: {names}{more} are annotation files and their names do not say which is '
        f'for training; {first} has most images: choose it with --data {tree.root / first}, or '
        'rename them to train.json and val.json'
    )
