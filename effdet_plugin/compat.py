"""Makes mmdet importable where its compiled halves are missing; the only file that touches others.

Importing this module
1. refuses installations that cannot work (two OpenMMLab stacks over each other, versions that do
   not fit), before one of them fails in a way that names no remedy;
2. repairs a torchvision whose C++ half does not load into the installed torch (the package index
   has its CUDA build only, so every CPU torch meets it);
3. serves ``mmcv._ext`` from :mod:`effdet_plugin.mmcv_ops` where mmcv comes without compiled ops
   (``mmcv-lite``, or any mmcv built from source without torch at hand).

Where the real thing is there, it is used untouched: 2 acts on torchvision's own failure only, and
the finder of 3 stands last in ``sys.meta_path``.
"""

import importlib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from types import ModuleType

from effdet_plugin.errors import InstallError

OPENMMLAB = ('mmengine', 'mmcv', 'mmdet')
INSTALL_HINT = "pip install 'effdet_plugin[openmmlab]' (or [onedl], the maintained fork)"
_MINIMUM = {'torch': (2, 4), 'timm': (1, 0, 9), 'mmengine': (0, 10, 4)}
# mmdet (upstream) asserts this range of mmcv when it is imported; the fork asserts nothing.
_MMCV_OF_MMDET = ((2, 0, 0), (2, 2, 0))
_FLOORS_ON_MMDET = (
    *('models', 'task_modules', 'datasets', 'engine', 'evaluation', 'config'),
    *('inference', 'benchmark', 'own_data', 'training', 'ablation'),
)
# torchvision asks for both as it registers its meta kernels: with `nms` alone it stops at `qnms`.
_NMS_SIGNATURE = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_TORCHVISION_SCHEMAS = (f'nms{_NMS_SIGNATURE}', f'qnms{_NMS_SIGNATURE}')

# Schemas live as long as their Library object.
_torchvision_library: object | None = None


def missing_openmmlab() -> list[str]:
    """Names of ``mmengine``, ``mmcv`` and ``mmdet`` that are not installed."""
    return [name for name in OPENMMLAB if name not in sys.modules and find_spec(name) is None]


def torchvision_is_repaired() -> bool:
    """Whether torchvision runs without its C++ half, on the operator schemas defined here."""
    return _torchvision_library is not None


def mmcv_ext_is_stand_in() -> bool:
    """Whether ``mmcv._ext`` is (or would be) served by :mod:`effdet_plugin.mmcv_ops`."""
    if 'mmcv' in missing_openmmlab():
        return False
    spec = find_spec('mmcv._ext')
    return spec is not None and isinstance(spec.loader, _MmcvExtLoader)


def check_distributions(owners: Mapping[str, Sequence[str]]) -> None:
    """Refuse packages that were installed over each other.

    Args:
        owners: import name -> names of the distributions that have put files there.

    Raises:
        InstallError: ``mmengine``, ``mmcv`` or ``mmdet`` belongs to more than one distribution.
    """
    for name in OPENMMLAB:
        found = sorted(set(owners.get(name, ())))
        if len(found) > 1:
            raise InstallError(
                f'{" and ".join(found)} are installed over each other in the folder {name!r}, so '
                f'its files are a mixture; pip uninstall -y {" ".join(found)}, then reinstall one'
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
        versions: import name -> version of the distribution; names that are absent pass.
        owners: import name -> names of its distributions.

    Raises:
        InstallError: a package is older than our minimum, or mmcv is not one that mmdet takes.
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
                f'mmdet takes mmcv 2.0.0 to 2.1.x, but {held} {versions["mmcv"]} is installed; '
                f'pip uninstall -y {held} && pip install mmcv-lite==2.1.0'
            )


def repair_torchvision() -> None:
    """Import torchvision; where its C++ half does not load, give it the schemas that it asks for.

    ``torchvision.ops.nms`` and its kind then still raise, as torchvision asks for its C++ half
    first; everything in Python works. Nothing happens when torchvision is healthy or absent.
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
    """Fills the module ``mmcv._ext`` from :mod:`effdet_plugin.mmcv_ops`."""

    def exec_module(self, module: ModuleType) -> None:
        from effdet_plugin import mmcv_ops

        module.__dict__.update(mmcv_ops.OPS)
        module.__dict__['__getattr__'] = mmcv_ops.missing_op
        module.__dict__['__effdet_stub__'] = True


class MmcvExtFinder(MetaPathFinder):
    """Answers for ``mmcv._ext`` only; stands last, so that a compiled one is found before."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of the stand-in, or None for every other name."""
        del path, target
        return ModuleSpec(fullname, _MmcvExtLoader()) if fullname == 'mmcv._ext' else None


class NeedsMmdetFinder(MetaPathFinder):
    """Says what to install when one of our own packages is imported that builds on mmdet."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise for our packages above ``ops`` while mmdet is missing; None otherwise."""
        del path, target
        package, _, rest = fullname.partition('.')
        if package == 'effdet_plugin' and rest.split('.')[0] in _FLOORS_ON_MMDET:
            missing = missing_openmmlab()
            if missing:
                raise InstallError(
                    f'{fullname} needs {", ".join(missing)}, not installed; {INSTALL_HINT}'
                )
        return None


def _release(text: str) -> tuple[int, ...]:
    """``'2.13.0+cpu'`` -> ``(2, 13, 0)``."""
    match = re.match(r'\d+(\.\d+)*', text)
    return tuple(map(int, match.group().split('.'))) if match else ()


def _installed_versions(owners: Mapping[str, Sequence[str]]) -> dict[str, str]:
    found = {}
    for name in (*_MINIMUM, 'mmcv'):
        for distribution in owners.get(name, ())[:1]:
            try:
                found[name] = version(distribution)
            except PackageNotFoundError:  # removed between the two looks
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


_apply()
