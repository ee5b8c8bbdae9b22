"""Refuse a built detector whose layers need compiled operators of mmcv that are missing.

mmcv-lite has the Python half of every operator, so such a detector can be built, but fails at its
first image. The operators that we replace are in :mod:`effdet_plugin.mmcv_ops`.
"""

import sys
from collections.abc import Iterator

from torch import nn

from effdet_plugin.compat import mmcv_ext_is_stand_in
from effdet_plugin.errors import InstallError

# Files of mmcv.ops whose layers run on plain torch or on our replacements.
_RUNNING = {
    'cc_attention',
    'corner_pool',
    'deprecated_wrappers',
    'focal_loss',
    'merge_cells',
    'multi_scale_deform_attn',  # on CPUs; on a GPU it raises an error that says so
    'point_sample',
    'roi_align',
}
# Operators that heads call as functions: no layer of the model is of mmcv.ops then.
_FUNCTIONS = ('deform_conv2d', 'modulated_deform_conv2d')


def check_compiled_ops(model: nn.Module) -> None:
    """Refuse a model that would fail without a compiled mmcv; with one, do nothing.

    Args:
        model: A built detector.

    Raises:
        InstallError: Names the layer and the remedy.
    """
    if not mmcv_ext_is_stand_in():
        return
    for name, need in missing_ops(model):
        raise InstallError(
            f'{name or "the model"} ({need}) needs an operator of a compiled mmcv; install '
            'mmcv>=2.0,<2.2 with its ops in place of mmcv-lite, or use a layer without it'
        )


def missing_ops(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the layers that need a compiled mmcv: name in the model, and class or operator.

    Args:
        model: A built detector.
    """
    for name, module in model.named_modules():
        # Also base classes: a layer of mmcv is often subclassed.
        for cls in type(module).__mro__:
            package, _, file = cls.__module__.rpartition('.')
            if package == 'mmcv.ops' and file not in _RUNNING:
                yield name, cls.__name__
                break
            if used := [f for f in _FUNCTIONS if _imports(cls, f)]:
                yield name, f'{cls.__name__}: {used[0]}'
                break


def _imports(cls: type, function: str) -> bool:
    """Whether the module that defines a class has imported an operator of mmcv as a function."""
    if cls.__module__.partition('.')[0] in ('mmcv', 'torch', 'builtins'):
        return False
    return hasattr(sys.modules.get(cls.__module__), function)
