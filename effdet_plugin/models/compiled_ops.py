"""Refuses a built detector whose layers need operators of mmcv that are not there.

mmcv-lite has the Python half of every operator, so that such a detector builds, and stops at its
first image. What stands in for the compiled half is in :mod:`effdet_plugin.mmcv_ops`.
"""

import sys
from collections.abc import Iterator

from mmcv.utils import ext_loader
from torch import nn

from effdet_plugin.errors import InstallError

# Files of mmcv.ops whose layers run on plain torch or on our stand-ins.
_RUNNING = {
    'cc_attention',
    'corner_pool',
    'deprecated_wrappers',
    'focal_loss',
    'merge_cells',
    'multi_scale_deform_attn',  # on CPUs; on a GPU it stops and says so
    'point_sample',
    'roi_align',
}
# Operators that heads call as functions, so that no layer of theirs shows it.
_FUNCTIONS = ('deform_conv2d', 'modulated_deform_conv2d')


def check_compiled_ops(model: nn.Module) -> None:
    """Refuse a model that would stop for want of a compiled mmcv; nothing where mmcv is compiled.

    Args:
        model: A built detector.

    Raises:
        InstallError: Names the layer and the remedy.
    """
    if not _is_stand_in():
        return
    for name, need in missing_ops(model):
        raise InstallError(
            f'{name or "the model"} ({need}) needs an operator of a compiled mmcv; install '
            'mmcv>=2.0,<2.2 with its ops in place of mmcv-lite, or use a layer without it'
        )


def missing_ops(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield layers that need a compiled mmcv: their names in the model, and what they are.

    Args:
        model: A built detector.
    """
    for name, module in model.named_modules():
        for cls in type(module).__mro__:
            package, _, file = cls.__module__.rpartition('.')
            if package == 'mmcv.ops' and file not in _RUNNING:
                yield name, cls.__name__
                break
            if used := [f for f in _FUNCTIONS if _imports(cls, f)]:
                yield name, f'{cls.__name__}: {used[0]}'
                break


def _imports(cls: type, function: str) -> bool:
    """Whether the file of a class has imported an operator of mmcv as a function."""
    if cls.__module__.partition('.')[0] in ('mmcv', 'torch', 'builtins'):
        return False
    return hasattr(sys.modules.get(cls.__module__), function)


def _is_stand_in() -> bool:
    extension = ext_loader.load_ext('_ext', [])
    return bool(getattr(extension, '__effdet_stub__', False))
