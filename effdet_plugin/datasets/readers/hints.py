"""Says what annotations are that the readers do not take, and what to do about them."""

from collections import Counter
from pathlib import Path
from typing import Any

from effdet_plugin.datasets.readers.documents import read_json, read_xml
from effdet_plugin.datasets.readers.tree import Tree
from effdet_plugin.errors import DatasetError

SUPPORTED = 'COCO json, Pascal VOC xml, YOLO txt with data.yaml or classes.txt, or a csv of boxes'
_BY_SUFFIX = {
    '.tfrecord': 'TFRecord files',
    '.record': 'TFRecord files',
    '.zip': 'a zip file: unpack it first',
    '.parquet': 'parquet files',
    '.jsonl': 'json lines',
}


def nothing_found(tree: Tree) -> str:
    """One line for a folder without known annotations: what is in it, and what would be read."""
    if not tree.files:
        return f'{tree.root}: the folder is empty: no annotations and no images'
    foreign = next(filter(None, map(_foreign, tree.files)), '')
    said = f'; it has {foreign}: export them in one of these forms' if foreign else ''
    suffixes = Counter(path.suffix.lower() or path.name for path in tree.files)
    seen = ', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common(4))
    return f'{tree.root}: found no annotations of a known form ({SUPPORTED}) among {seen}{said}'


def _foreign(path: Path) -> str:
    """What a file is, '' if it is nothing that is known."""
    suffix = path.suffix.lower()
    try:
        if suffix == '.json':
            return _foreign_json(read_json(path))
        if suffix == '.xml':
            tags = {'annotations': 'CVAT xml', 'dataset': 'dlib (imglab) xml'}
            return tags.get(read_xml(path).tag, '')
    except DatasetError as error:
        return f'a damaged file ({error})'
    return _BY_SUFFIX.get(suffix, '')


def _foreign_json(document: Any) -> str:
    first = document[0] if isinstance(document, list) and document else document
    keys = set(first) if isinstance(first, dict) else set()
    signs = {
        'labelme json': {'shapes', 'imagePath'},
        "Label Studio's own json": {'annotations', 'data'},
        'CreateML json': {'annotations', 'image'},
        'Datumaro json': {'items', 'categories'},
        'a VIA project': {'_via_img_metadata'},
    }
    return next((name for name, needed in signs.items() if needed <= keys), '')
