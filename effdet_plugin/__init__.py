"""EfficientDet as parts for MMDetection: importing the package registers them, and nothing else."""

from importlib import import_module

from effdet_plugin import compat  # first: makes mmdet importable

__version__ = '0.1.0'

# Importing one of these puts its parts into mmdet's registries.
REGISTERING = ('models', 'task_modules', 'datasets', 'engine', 'evaluation')


def _register() -> None:
    if compat.missing_openmmlab():
        return  # `effdet_plugin.ops` is of use alone; the others say what to install
    for name in REGISTERING:
        import_module(f'{__name__}.{name}')


_register()
