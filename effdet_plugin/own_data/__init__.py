"""Own data: from a folder as labelling tools write it to COCO jsons, and a config for them."""

from effdet_plugin.own_data.annotation_check import CheckedFiles, check_annotation_files
from effdet_plugin.own_data.apply import (
    DATA_FOLDER,
    apply_data,
    dry_run_summary,
    set_data,
    set_num_classes,
)
from effdet_plugin.own_data.dataset import DatasetDescription, Image, Split
from effdet_plugin.own_data.read import read_dataset
from effdet_plugin.own_data.splits import with_validation
from effdet_plugin.own_data.write import write_coco

__all__ = [
    'DATA_FOLDER',
    'CheckedFiles',
    'DatasetDescription',
    'Image',
    'Split',
    'apply_data',
    'check_annotation_files',
    'dry_run_summary',
    'read_dataset',
    'set_data',
    'set_num_classes',
    'with_validation',
    'write_coco',
]
