"""Benchmarks of networks, files, detectors, training steps and loaders, timed in turns."""

from importlib import import_module
from typing import TYPE_CHECKING

from effdet_plugin.benchmark.settings import DEFAULT_FORMS, FORMS, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from effdet_plugin.benchmark.report import Report

# A mode is a module of this package with `measure(settings, tell) -> Report`.
MODES = ('network', 'end2end', 'train', 'memory', 'postprocess', 'loader')

__all__ = ['DEFAULT_FORMS', 'FORMS', 'MODES', 'Settings', 'run']


def run(mode: str, settings: Settings, tell: 'Callable[[str], None]' = lambda _: None) -> 'Report':
    """Run a benchmark.

    Args:
        mode: Of `MODES`.
        settings: What is measured.
        tell: Told what is being done.

    Raises:
        UserError: A model cannot be loaded, or a setting is wrong.
    """
    report: Report = import_module(f'effdet_plugin.benchmark.{mode}').measure(settings, tell)
    return report
