"""Readers: from a folder as labelling tools write it to one plain description."""

from effdet_plugin.datasets.readers.description import DatasetDescription, Image, Split
from effdet_plugin.datasets.readers.discover import read_dataset
from effdet_plugin.datasets.readers.findings import Finding
from effdet_plugin.datasets.readers.splits import with_validation
from effdet_plugin.datasets.readers.write import write_coco

__all__ = [
    'DatasetDescription',
    'Finding',
    'Image',
    'Split',
    'read_dataset',
    'with_validation',
    'write_coco',
]
