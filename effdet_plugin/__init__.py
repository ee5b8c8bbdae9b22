"""EfficientDet components for MMDetection; importing the package registers them in mmdet.

from effdet_plugin import Detector     # train, predict, test, export; see `effdet_plugin.api`
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = '0.1.0'

# Importing one of these registers its components in mmdet's registries.
REGISTERING = ('models', 'task_modules', 'datasets', 'engine', 'evaluation')
# What a command line needs until it is parsed.
_LIGHT = ('__main__', 'cli', 'errors', 'other_names', 'shipped_configs')


def _register() -> None:
    compat = import_module(f'{__name__}.compat')  # before anything that imports mmdet
    if compat.missing_openmmlab():
        return  # `effdet_plugin.ops` needs no mmdet; the others raise an error with the remedy
    for name in REGISTERING:
        import_module(f'{__name__}.{name}')


class _RegisterLater(MetaPathFinder, Loader):
    """Registers everything as soon as one of our modules needs more than a command line."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Register before the first module that is not light; no module is loaded by this."""
        package, _, rest = fullname.partition('.')
        if package != __name__ or rest.split('.')[0] in _LIGHT:
            return None
        sys.meta_path.remove(self)
        _register()
        # Registering may have imported the very module: it must not run twice. It may also have put
        # a finder before this one.
        if fullname in sys.modules:
            return ModuleSpec(fullname, self)
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
        return next((spec for spec in found if spec is not None), None)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that is there."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has been run."""


def _is_command() -> bool:
    """Whether this process is the console command, a tool or ``python -m effdet_plugin``."""
    if sys.argv[:1] == ['-m']:  # a module is looked for; which one, only this tells
        return ('-m', __name__) in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return 'effdet_plugin_command' in sys.modules


def __getattr__(name: str) -> Any:
    if name == 'Detector':
        return import_module(f'{__name__}.api').Detector
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if _is_command():
    sys.meta_path.insert(0, _RegisterLater())
else:
    _register()
