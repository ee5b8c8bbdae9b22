"""The full check of a dataset: every image decoded, every box compared, anchors of the config."""

from effdet_plugin.data_check.check import CheckSettings, check_dataset
from effdet_plugin.data_check.clean import write_clean_copy
from effdet_plugin.data_check.report import Report, write_json, write_report

__all__ = [
    'CheckSettings',
    'Report',
    'check_dataset',
    'write_clean_copy',
    'write_json',
    'write_report',
]
