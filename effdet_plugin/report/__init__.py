"""What an evaluation found, as one HTML page and one image."""

from effdet_plugin.report.collect import Detections, Facts, collect
from effdet_plugin.report.history import History, read_history
from effdet_plugin.report.write import PAGE, SHEET, Subject, write_report

__all__ = [
    'PAGE',
    'SHEET',
    'Detections',
    'Facts',
    'History',
    'Subject',
    'collect',
    'read_history',
    'write_report',
]
