"""EfficientDet components for MMDetection; importing the package registers them in mmdet."""

from importlib import import_module

from effdet_plugin import compat  # before anything that imports mmdet

__version__ = '0.1.0'

# Importing one of these registers its components in mmdet's registries.
REGISTERING = ('models', 'task_modules', 'datasets', 'engine', 'evaluation')


def _register() -> None:
    if compat.missing_openmmlab():
        return  # `effdet_plugin.ops` needs no mmdet; the others raise an error with the remedy
    for name in REGISTERING:
        import_module(f'{__name__}.{name}')


_register()
