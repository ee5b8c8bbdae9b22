"""Chooses the COCO jsons of a folder and the split of each."""

from pathlib import Path
from typing import Any, NamedTuple

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_json, read_text
from effdet_plugin.own_data.find_images import ANNOTATION_FOLDERS, Tree, list_tree
from effdet_plugin.own_data.splits import split_of_parts, with_train
from effdet_plugin.own_data.write import WRITTEN_INFO

# Files of the original tree that are beside ``instances_*`` and are no detection files.
_OTHER_TASKS = (
    'captions_', 'person_keypoints_', 'stuff_', 'panoptic_', 'image_info_', 'labels_',
)  # fmt: skip


class CocoFile(NamedTuple):
    """A json that describes boxes in images."""

    path: Path
    document: dict[str, Any]


class CocoChoice(NamedTuple):
    """The json of each split, and those that are left over."""

    files: dict[str, CocoFile]
    unused: list[Path]


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
