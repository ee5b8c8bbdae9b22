"""Checks the Pascal VOC files that mmdet's ``XMLDataset`` reads for a config."""

import os
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from mmdet.registry import DATASETS

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data.dataset import DatasetDescription, RawDataset
from effdet_plugin.own_data.documents import read_lines
from effdet_plugin.own_data.find_images import Locator, Tree
from effdet_plugin.own_data.findings import Findings, printable
from effdet_plugin.own_data.forms import alike_name
from effdet_plugin.own_data.normalise import describe
from effdet_plugin.own_data.voc import Listed, VocReader

_PLACES = {'img_subdir': 'JPEGImages', 'ann_subdir': 'Annotations'}  # mmdet's defaults


def describe_xmls(node: Any, path: Path, classes: tuple[str, ...]) -> DatasetDescription:
    """Return the description of what ``XMLDataset`` will read, at the paths where it looks.

    Args:
        node: The dataset's node of a config.
        path: Its list of names.
        classes: Names of the config; mmdet passes over boxes of others.

    Raises:
        DatasetError: An xml is missing, no box has a class of the config, or a name is spelt in
            another way.
    """
    root = Path(
        node.get('data_root') or '', (node.get('data_prefix') or {}).get('sub_data_root', '')
    )
    places = {key: root / node.get(key, usual) for key, usual in _PLACES.items()}
    names = [name for name in read_lines(path) if name]
    xmls = [places['ann_subdir'] / f'{name}.xml' for name in names]
    for name in names:
        if os.path.isabs(name) or '..' in name.split('/'):
            raise DatasetError(
                f'{path}: the name {printable(name)} leads out of the data folder: write names of '
                'images without suffix'
            )
    missing = [xml for xml in xmls if not os.path.isfile(xml)]  # also of a name beyond all bounds
    if missing:
        raise DatasetError(
            f'{printable(missing[0])}: there is no such annotation file ({len(missing)} of the '
            f'{len(names)} names of {path}); set data_root and data_prefix.sub_data_root'
        )
    findings = Findings()
    reader = _AsWritten(Tree(root, []), places['img_subdir'], findings)
    listed = (Listed(name, xml, path, None) for name, xml in zip(names, xmls, strict=True))
    images = [image for image in map(reader.image, listed) if image is not None]
    found = dict.fromkeys(box.name for image in images for box in image.boxes)
    _check_names(path, list(found), classes)
    return describe(RawDataset(root, 'Pascal VOC', list(found), {'train': images}, findings))


def is_xml_dataset(dataset_type: Any) -> bool:
    """Return whether a registered type is mmdet's reader of Pascal VOC or a subclass of it."""
    known = DATASETS.get('XMLDataset')
    return known is not None and issubclass(dataset_type, known)


class _AsWritten(VocReader):
    """Finds images as mmdet does: by the name of the list, as ``.jpg``, in one folder."""

    def __init__(self, tree: Tree, folder: Path, findings: Findings) -> None:
        super().__init__(tree, Locator(tree, findings), findings)
        self._folder = folder

    def find_image(self, xml: Path, root: Element, split: str | None) -> Path:
        """Return the path of an xml's image."""
        return self._folder / f'{xml.stem}.jpg'


def _check_names(path: Path, found: list[str], classes: tuple[str, ...]) -> None:
    left_out = [name for name in found if name not in classes]
    if found and len(left_out) == len(found):
        raise DatasetError(
            f"{path}: its boxes have the classes {', '.join(found[:4])} and none of the config's "
            f'({", ".join(classes[:4])}): set metainfo.classes and num_classes, or give --data'
        )
    for name in (name for name in classes if name not in found):
        if other := alike_name(name, left_out):
            raise DatasetError(
                f'{path}: has the class {other!r}, whose boxes would not be used, and not {name!r} '
                'of the config: write the name as it is there in metainfo.classes, or give --data'
            )
