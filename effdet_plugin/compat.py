"""Makes mmdet importable without compiled operators; the only file that patches other packages.

Importing this module
1. refuses installations that cannot work (two OpenMMLab stacks installed over each other,
   incompatible versions) with an error that names the remedy;
2. repairs a torchvision whose compiled operators do not load into the installed torch (its default
   build is for CUDA, so this happens with a CPU build of torch from another index);
3. provides ``mmcv._ext`` from :mod:`effdet_plugin.mmcv_ops` if mmcv has no compiled operators
   (``mmcv-lite``, or an mmcv that was built without torch);
4. lets configs of mmengine name ours in ``_base_``, as ``effdet_plugin::efficientdet/d2_coco.py``,
   and formats the text of a config once: mmengine does it for each checkpoint, log and dump.

Compiled operators are used if they are installed: 2 acts only after torchvision's own import error,
and the finder of 3 is the last in ``sys.meta_path``.
"""

import importlib
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from effdet_plugin.errors import InstallError

if TYPE_CHECKING:  # torch itself may be what is missing
    from torch import nn

OPENMMLAB = ('mmengine', 'mmcv', 'mmdet')
INSTALL_HINT = (
    "pip install 'effdet_plugin[app]' (or [openmmlab] for training alone; "
    '[onedl] is its maintained fork)'
)
_MINIMUM = {'torch': (2, 4), 'timm': (1, 0, 9), 'mmengine': (0, 10, 4)}
# mmdet (upstream) asserts this range of mmcv when it is imported; the fork asserts nothing.
_MMCV_OF_MMDET = ((2, 0, 0), (2, 2, 0))
_NEED_MMDET = (
    *('models', 'task_modules', 'datasets', 'engine', 'evaluation', 'config'),
    *(
        'inference',
        'cost_plot',
        'costs',
        'own_data',
        'training',
        'ablation',
        'api',
        'benchmark',
        'demo',
        'data_check',
        'trained_model',
        'export',
        'report',
    ),
)
# torchvision registers meta kernels for both on import: with `nms` alone it fails at `qnms`.
_NMS_SIGNATURE = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_TORCHVISION_SCHEMAS = (f'nms{_NMS_SIGNATURE}', f'qnms{_NMS_SIGNATURE}')
# Files of mmcv.ops whose layers run on plain torch or on our replacements.
_RUNNING_OPS = {
    'cc_attention',
    'corner_pool',
    'deprecated_wrappers',
    'focal_loss',
    'merge_cells',
    'multi_scale_deform_attn',  # on CPUs; on a GPU it raises an error that says so
    'point_sample',
    'roi_align',
}
# Operators that heads call as functions, so that no layer of the model comes from mmcv.ops.
_OPS_AS_FUNCTIONS = ('deform_conv2d', 'modulated_deform_conv2d')

# The schemas exist as long as their Library object, which is therefore kept here.
_torchvision_library: object | None = None


def missing_openmmlab() -> list[str]:
    """Return which of ``mmengine``, ``mmcv`` and ``mmdet`` are not installed."""
    return [name for name in OPENMMLAB if name not in sys.modules and find_spec(name) is None]


def torchvision_is_repaired() -> bool:
    """Return whether torchvision runs without compiled operators, on the schemas defined here."""
    return _torchvision_library is not None


def mmcv_ext_is_stand_in() -> bool:
    """Return whether ``mmcv._ext`` comes from :mod:`effdet_plugin.mmcv_ops`."""
    if 'mmcv' in missing_openmmlab():
        return False
    spec = find_spec('mmcv._ext')
    return spec is not None and isinstance(spec.loader, _MmcvExtLoader)


def check_distributions(owners: Mapping[str, Sequence[str]]) -> None:
    """Refuse packages that were installed over each other.

    Args:
        owners: Import name -> names of the distributions that installed files there.

    Raises:
        InstallError: ``mmengine``, ``mmcv`` or ``mmdet`` has files of several distributions.
    """
    for name in OPENMMLAB:
        found = sorted(set(owners.get(name, ())))
        if len(found) > 1:
            raise InstallError(
                f'{" and ".join(found)} are installed over each other in the folder {name!r}, so '
                f'its files are mixed; pip uninstall -y {" ".join(found)}, then reinstall one'
            )
    wheels = sorted({name for name in owners.get('cv2', ()) if name.startswith('opencv')})
    if len(wheels) > 1:
        warnings.warn(
            f'{" and ".join(wheels)} share the folder cv2; keep one of them '
            f'(pip uninstall -y {" ".join(wheels)}, then reinstall one)',
            stacklevel=2,
        )


def check_versions(versions: Mapping[str, str], owners: Mapping[str, Sequence[str]]) -> None:
    """Refuse versions that are known not to work together.

    Args:
        versions: Import name -> version of the distribution; absent packages are not checked.
        owners: Import name -> names of its distributions.

    Raises:
        InstallError: A package is older than our minimum, or mmdet does not accept this mmcv.
    """
    for name, minimum in _MINIMUM.items():
        if name in versions and _release(versions[name]) < minimum:
            wanted = '.'.join(map(str, minimum))
            raise InstallError(
                f'{name} {versions[name]} is too old, {wanted} or later is needed; '
                f"pip install -U '{name}>={wanted}'"
            )
    upstream = 'mmdet' in owners.get('mmdet', ())
    if upstream and 'mmcv' in versions:
        low, high = _MMCV_OF_MMDET
        if not low <= _release(versions['mmcv']) < high:
            held = ' '.join(owners.get('mmcv', ())) or 'mmcv'
            raise InstallError(
                f'mmdet needs mmcv 2.0.0 to 2.1.x, but {held} {versions["mmcv"]} is installed; '
                f'pip uninstall -y {held} && pip install mmcv-lite==2.1.0'
            )


def repair_torchvision() -> None:
    """Import torchvision; if its compiled operators do not load, define the schemas that it needs.

    Operators such as ``torchvision.ops.nms`` then still raise, since torchvision checks for its
    compiled operators; everything in Python works. If they do load, nothing is changed.
    """
    global _torchvision_library
    if find_spec('torchvision') is None:
        return
    try:
        importlib.import_module('torchvision')
    except RuntimeError as error:
        if 'torchvision::' not in str(error):
            raise
        _torchvision_library = _define_torchvision_schemas()
        importlib.import_module('torchvision')


def _define_torchvision_schemas() -> object:
    from torch.library import Library

    for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
        del sys.modules[name]
    library = Library('torchvision', 'FRAGMENT')
    for schema in _TORCHVISION_SCHEMAS:
        library.define(schema)
    return library


class _MmcvExtLoader(Loader):
    """Loads the module ``mmcv._ext`` from :mod:`effdet_plugin.mmcv_ops`."""

    def exec_module(self, module: ModuleType) -> None:
        from effdet_plugin import mmcv_ops

        module.__dict__.update(mmcv_ops.OPS)
        module.__dict__['__getattr__'] = mmcv_ops.missing_op
        module.__dict__['__effdet_stub__'] = True


class MmcvExtFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` only; last in the path, so that a compiled one is found first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of the stand-in; None for every other name."""
        del path, target
        return ModuleSpec(fullname, _MmcvExtLoader()) if fullname == 'mmcv._ext' else None


class NeedsMmdetFinder(MetaPathFinder):
    """Raises an error with the remedy when a part of this package needs a missing mmdet."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise for our packages that need mmdet if it is missing; return None otherwise."""
        del path, target
        package, _, rest = fullname.partition('.')
        if package == 'effdet_plugin' and rest.split('.')[0] in _NEED_MMDET:
            missing = missing_openmmlab()
            if missing:
                raise InstallError(
                    f'{fullname} needs {", ".join(missing)}, not installed; {INSTALL_HINT}'
                )
        return None


def read_our_bases() -> None:
    """Make mmengine's configs find ``effdet_plugin::FOLDER/NAME.py`` in ``_base_``.

    mmengine has the form for packages of OpenMMLab only. Theirs also gives each dict of such a base
    the package as its registry scope; our parts are in mmdet's registries, so ours have none.
    """
    from mmengine.config import Config

    from effdet_plugin.shipped_configs import PREFIX, path

    find = Config._get_cfg_path

    def find_ours(name: str, filename: str) -> tuple[str, str | None]:
        return (str(path(name)), None) if name.startswith(PREFIX) else find(name, filename)

    Config._get_cfg_path = staticmethod(find_ours)


def format_configs_once() -> None:
    """Make mmengine keep the formatted text of the last configs.

    yapf takes most of a second for one of ours, and a run asks for the same text when it starts
    (five times) and with each checkpoint.
    """
    module = importlib.import_module('mmengine.config.config')
    format_code = module.FormatCode

    @lru_cache(maxsize=4)
    def format_text(text: str, settings: str) -> Any:
        return format_code(text, **json.loads(settings))

    def format_once(text: str, **settings: Any) -> Any:
        return format_text(text, json.dumps(settings))

    module.FormatCode = format_once  # type: ignore[attr-defined]


def _release(text: str) -> tuple[int, ...]:
    """Return ``(2, 13, 0)`` for ``'2.13.0+cpu'``."""
    match = re.match(r'\d+(\.\d+)*', text)
    return tuple(map(int, match.group().split('.'))) if match else ()


def _installed_versions(owners: Mapping[str, Sequence[str]]) -> dict[str, str]:
    found = {}
    for name in (*_MINIMUM, 'mmcv'):
        for distribution in owners.get(name, ())[:1]:
            try:
                found[name] = version(distribution)
            except PackageNotFoundError:  # uninstalled in the meantime
                continue
    return found


def _apply() -> None:
    if find_spec('torch') is None:
        raise InstallError('torch is not installed; see README.md, or run bash tools/setup.sh')
    owners = packages_distributions()
    check_distributions(owners)
    check_versions(_installed_versions(owners), owners)
    repair_torchvision()
    if not any(isinstance(finder, MmcvExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MmcvExtFinder())
    if missing_openmmlab():
        sys.meta_path.insert(0, NeedsMmdetFinder())
    else:
        read_our_bases()
        format_configs_once()


_apply()


def check_compiled_ops(model: 'nn.Module') -> None:
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


def missing_ops(model: 'nn.Module') -> Iterator[tuple[str, str]]:
    """Yield the layers that need a compiled mmcv: name in the model, and class or operator.

    Args:
        model: A built detector.
    """
    for name, module in model.named_modules():
        # Also base classes: a layer of mmcv is often subclassed.
        for cls in type(module).__mro__:
            package, _, file = cls.__module__.rpartition('.')
            if package == 'mmcv.ops' and file not in _RUNNING_OPS:
                yield name, cls.__name__
                break
            if used := [f for f in _OPS_AS_FUNCTIONS if _imports(cls, f)]:
                yield name, f'{cls.__name__}: {used[0]}'
                break


def _imports(cls: type, function: str) -> bool:
    """Whether the module that defines a class has imported an operator of mmcv as a function."""
    if cls.__module__.partition('.')[0] in ('mmcv', 'torch', 'builtins'):
        return False
    return hasattr(sys.modules.get(cls.__module__), function)
