"""Checks the annotation files that a config names before minutes are spent on building."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from effdet_plugin.config.dataset_nodes import class_names, dataset_nodes, source_nodes
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.files import read_json, write_atomically
from effdet_plugin.own_data.coco import CocoFile, dict_entries, read_coco
from effdet_plugin.own_data.dataset import DatasetDescription
from effdet_plugin.own_data.evaluator_check import check_evaluators
from effdet_plugin.own_data.find_images import Tree, is_inside
from effdet_plugin.own_data.forms import alike_name
from effdet_plugin.own_data.mend import count_misread, mended
from effdet_plugin.own_data.normalise import describe
from effdet_plugin.own_data.xml_check import describe_xmls, is_xml_dataset

LOADERS = ('train_dataloader', 'val_dataloader')
Images = TypeVar('Images')
# A config may name some of the classes of a file, and several files of a folder.
_NO_REMARKS = frozenset({'class_unused', 'class_group', 'class_only_here', 'image_unused'})


class CheckedFiles(NamedTuple):
    """What came of the files that a config names.

    Attributes:
        remarks: One line for each kind of fault that does not stop a training.
        copies: COCO jsons that the config now names instead of its own, by path.
    """

    remarks: list[str]
    copies: dict[Path, dict[str, Any]]

    def remark(self, line: str) -> None:
        """Add a remark; a file that is used twice is said once."""
        if line not in self.remarks:
            self.remarks.append(line)

    def add(self, description: DatasetDescription, must_teach: bool) -> None:
        """Add the remarks on a file.

        Raises:
            DatasetError: There is an error among the findings; that it has no box is one where it
                is all that there is to train on.
        """
        for finding in description.findings:
            if finding.is_error and (must_teach or finding.kind != 'nothing_to_learn'):
                raise DatasetError(finding.message)
            if not finding.is_error and finding.kind not in _NO_REMARKS:
                self.remark(finding.message)

    def write(self) -> None:
        """Write the copies."""
        for path, document in self.copies.items():
            write_atomically(path, json.dumps(document))


def check_annotation_files(
    cfg: Config,
    loaders: Sequence[str] = LOADERS,
    folder: Path | None = None,
    is_first: bool = True,
) -> CheckedFiles:
    """Check that files and images exist, can be used, and that their classes are the config's.

    mmdet skips boxes of unknown categories, numbers those that the file has from 0 by their order
    in the file, not by their place in the config, and finds a missing image in the middle of an
    epoch. A head of more classes than the data would train, and its checkpoint be refused. Boxes
    and images are checked as those of ``--data`` are. A COCO json that mmdet would misread
    (``area`` 0, ids as text) is replaced by a copy, also in the evaluators.

    Args:
        cfg: Its datasets in local files are checked, inside any wrappers; changed where a copy is
            needed or ``classes`` is one string.
        loaders: Sections of the config.
        folder: Of the copies, which the caller writes; by default ``data`` in the work dir.
        is_first: False in the other processes of a training: they only find out whether a copy is
            used. COCO's 118,000 images take a minute to check, which one process is enough for.

    Raises:
        DatasetError: A file or image is missing or damaged, or a box makes no sense.
        ConfigError: The head predicts another number of classes than the config names.
    """
    folder = folder or Path(cfg.get('work_dir') or 'work_dirs').absolute() / 'data'
    checked = CheckedFiles([], {})
    for loader in loaders:
        whole = (cfg.get(loader) or {}).get('dataset')
        for node in dataset_nodes(whole):
            _make_names_a_tuple(node)
        sources = list(source_nodes(whole))
        for node in sources:
            is_remote = node.get('backend_args') or '://' in str(node.get('ann_file', ''))
            if node.get('ann_file') and not is_remote:
                must_teach = loader == 'train_dataloader' and len(sources) == 1
                path = Path(node.get('data_root') or '') / node.ann_file
                new = folder / f'{path.stem}-{_short_hash(path)}.json'
                if not is_first:
                    is_replaced = _is_misread(node, path)
                else:
                    in_training = loader == 'train_dataloader'
                    copy = _check_source(node, path, in_training, must_teach, checked)
                    _check_head(cfg, class_names(node))
                    if len(sources) == 1 and _has_boxes(DATASETS.get(node.type)):
                        name = loader.replace('dataloader', 'evaluator')
                        check_evaluators(cfg, name, path, class_names(node))
                    is_replaced = copy is not None
                    if copy is not None:
                        checked.copies[new] = copy
                if is_replaced:
                    _replace_file(cfg, node, path, new)
    return checked


def _make_names_a_tuple(node: ConfigDict) -> None:
    """Take ``classes=('whale')`` as one class: mmengine would take the letters of the word."""
    classes = (node.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and not os.path.isfile(classes):
        node.metainfo.classes = (classes,)


def _is_misread(node: ConfigDict, path: Path) -> bool:
    """Return whether a source gets a copy, as `_check_source` decides it."""
    if not _has_boxes(DATASETS.get(node.type)):
        return False
    document = read_json(path)
    return isinstance(document, dict) and count_misread(document) > 0


def _has_boxes(dataset_type: Any) -> bool:
    """Return whether a type reads COCO's boxes; some of its subclasses read other annotations."""
    if not issubclass(dataset_type, CocoDataset):
        return False
    return bool(dataset_type.parse_data_info is CocoDataset.parse_data_info)


def _check_source(
    node: ConfigDict, path: Path, in_training: bool, must_teach: bool, checked: CheckedFiles
) -> dict[str, Any] | None:
    """Check one source; return the copy that is needed, None if its file can be used."""
    root = Path(node.get('data_root') or '')
    if not path.is_file():
        raise DatasetError(
            f'{path}: there is no such annotation file; put the data there, set data_root and '
            f'ann_file, or give --data DIR'
        )
    dataset_type = DATASETS.get(node.type)
    if is_xml_dataset(dataset_type):
        checked.add(describe_xmls(node, path, class_names(node)), must_teach)
    if not issubclass(dataset_type, CocoDataset):
        return None
    document = read_json(path)
    if not isinstance(document, dict) or 'images' not in document:
        raise DatasetError(f'{path}: has no "images", so it is no COCO json')
    absent = _check_categories(path, document, class_names(node), in_training)
    if absent:
        checked.remark(f'{path}: {_told(absent)}: nothing trains or tests it')
    folder = root / (node.get('data_prefix') or {}).get('img', '')
    _check_images(path, document, folder, root)
    if not _has_boxes(dataset_type):
        return None
    description = _describe(path, document, folder)
    checked.add(description, must_teach)
    count = count_misread(document)
    if not count:
        return None
    checked.remark(
        f'{path}: {count} boxes or images would be lost or stop mmdet (area, iscrowd, ids or sizes '
        'as written): a mended copy is used'
    )
    return mended(document, description, folder)


class _AsWritten:
    """Finds images as mmdet does: at the path that is written, below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def locate(self, name: str, near: Path, row: str, split: str | None = None) -> Path:
        """Return the path of a name."""
        return self._folder / name

    def without_contested(self, images: Images) -> Images:
        """Return the images: none was found by a part of its name."""
        return images


def _describe(path: Path, document: dict[str, Any], folder: Path) -> DatasetDescription:
    tree = Tree(folder, [])
    return describe(read_coco(tree, {'train': CocoFile(path, document)}, _AsWritten(folder)))


def _replace_file(cfg: Config, node: ConfigDict, path: Path, new: Path) -> None:
    """Let a source, and all evaluators of its file, name another file."""
    node.ann_file = str(new)
    for name in ('val_evaluator', 'test_evaluator'):
        evaluators = cfg.get(name) or []
        for one in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
            if one.get('ann_file') and os.path.abspath(one.ann_file) == os.path.abspath(path):
                one.ann_file = str(new)


def _short_hash(path: Path) -> str:
    return hashlib.sha1(str(path.absolute()).encode()).hexdigest()[:8]


def _told(absent: list[str]) -> str:
    more = f' and {len(absent) - 1} more are' if len(absent) > 1 else ' is'
    return f'class {absent[0]!r} of the config{more} not in the file'


def _check_categories(
    path: Path, document: dict[str, Any], classes: tuple[str, ...], in_training: bool
) -> list[str]:
    """Check the names of a file against the config's; return those that it lacks."""
    # Ids as written: mmdet compares them as they are, where the reader of own data is tolerant.
    categories = dict_entries(document, 'categories')
    names = {
        one['id']: one.get('name') for one in categories if isinstance(one.get('id'), int | str)
    }
    shared = tuple(name for name in names.values() if name in classes)
    if not shared:
        raise DatasetError(
            f"{path}: has the classes {_shorten(names.values())} and none of the config's "
            f'{_shorten(classes)}: set metainfo.classes, or give --data'
        )
    absent = [name for name in classes if name not in shared]
    for name in absent:
        if other := alike_name(name, [str(one) for one in names.values() if one not in classes]):
            raise DatasetError(
                f'{path}: has the class {other!r}, whose boxes would not be used, and not {name!r} '
                'of the config: write the name as it is there in metainfo.classes, or give --data'
            )
    for label, name in enumerate(shared if in_training else ()):
        if classes[label : label + 1] != (name,):
            raise DatasetError(
                f'{path}: mmdet numbers the categories of a file by their order in it, so {name!r} '
                f'gets label {label}, which is not its place in metainfo.classes: write '
                f'classes={shared} there and num_classes={len(shared)}, or give --data'
            )
    return absent


def _check_images(path: Path, document: dict[str, Any], folder: Path, root: Path) -> None:
    names = [str(image.get('file_name', '')) for image in dict_entries(document, 'images')]
    for name in names:
        if os.path.isabs(name) or '..' in name.split('/'):
            place = Path(os.path.abspath(folder / name))
            if not is_inside(place, folder.absolute(), root.absolute(), path.parent.absolute()):
                raise DatasetError(
                    f'{path}: the path {name} leads out of {folder}: set data_prefix.img, move the '
                    'image into the folder, or put a link there'
                )
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise DatasetError(
            f'{folder / missing[0]}: the image is missing ({len(missing)} of the {len(names)} '
            f'images of {path})'
        )


def _check_head(cfg: Config, classes: tuple[str, ...]) -> None:
    parts = {'model': cfg.model, 'model.roi_head': cfg.model.get('roi_head') or {}}
    for name, part in parts.items():
        head = part.get('bbox_head')
        count = head.get('num_classes') if isinstance(head, dict) else None
        # COCO's 90 slots are 90 names; 90 outputs for its 80 names would be numbered otherwise.
        if count is not None and classes and count != len(classes):
            raise ConfigError(
                f'{name}.bbox_head.num_classes is {count}, but the dataset has {len(classes)} '
                f'classes ({_shorten(classes)}): set num_classes, or metainfo.classes'
            )


def _shorten(names: Iterable[object]) -> str:
    listed = list(map(str, names))
    return ', '.join(listed[:4]) + (', ...' if len(listed) > 4 else '') or '(none)'
