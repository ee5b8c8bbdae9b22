"""Installed versions and stand-ins in use: ``python -m effdet_plugin.env``, for bug reports."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import torch

import effdet_plugin
from effdet_plugin import compat

_FAMILIES = {'mmdet': 'OpenMMLab', 'onedl-mmdetection': 'onedl'}
_LIBRARIES = ('timm', 'torchvision', 'numpy', 'cv2', 'pycocotools')
_OPTIONAL = ('effdet', 'onnx', 'onnxruntime', 'openvino', 'ai_edge_litert', 'tensorflow', 'triton')


def collect() -> dict[str, str]:
    """Return topic -> text, in the order of the report."""
    owners = packages_distributions()
    return {
        'effdet_plugin': f'{effdet_plugin.__version__}{_commit()}, {_folder()}',
        'Python': f'{platform.python_version()}, {sys.executable}',
        'platform': f'{platform.platform()}, {os.cpu_count()} CPUs',
        'torch': f'{torch.__version__}, {_torch_build()}',
        'GPU': _gpus(),
        'stack': _stack(owners),
        'libraries': _versions(_LIBRARIES, owners),
        'optional': _versions(_OPTIONAL, owners) or 'none',
        'torchvision': _torchvision_state(),
        'mmcv ops': _mmcv_state(),
    }


def report() -> str:
    """Return the findings as aligned lines of text."""
    findings = collect()
    width = max(map(len, findings))
    return '\n'.join(f'{name:<{width}}  {text}' for name, text in findings.items())


def _folder() -> Path:
    return Path(effdet_plugin.__file__).parent


def _commit() -> str:
    """Return `` (commit …)`` in a clone, with ``+`` if it has changes; empty elsewhere."""
    command = ['git', '-C', str(_folder()), 'describe', '--always', '--dirty=+', '--exclude=*']
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ''  # no git, or not a clone
    return f' (commit {done.stdout.strip()})'


def _torch_build() -> str:
    if torch.version.cuda:
        return f'CUDA {torch.version.cuda}'
    return f'ROCm {torch.version.hip}' if torch.version.hip else 'built for CPU'


def _gpus() -> str:
    if torch.cuda.is_available():
        devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        return ', '.join(f'{device.name} ({device.total_memory >> 20} MiB)' for device in devices)
    return 'Apple (mps)' if torch.backends.mps.is_available() else 'none'


def _stack(owners: Mapping[str, list[str]]) -> str:
    missing = compat.missing_openmmlab()
    if missing:
        return f'incomplete: {", ".join(missing)} not installed; {compat.INSTALL_HINT}'
    family = _FAMILIES.get(owners.get('mmdet', [''])[0], 'of unknown origin')
    return f'{family}: {_versions(compat.OPENMMLAB, owners)}'


def _versions(names: Iterable[str], owners: Mapping[str, list[str]]) -> str:
    """Return ``distribution version`` of each import name that is installed."""
    found = []
    for distribution in (owner for name in names for owner in sorted(set(owners.get(name, ())))):
        try:
            found.append(f'{distribution} {version(distribution)}')
        except PackageNotFoundError:  # uninstalled in the meantime
            continue
    return ', '.join(found)


def _torchvision_state() -> str:
    if compat.torchvision_is_repaired():
        return 'stand-in: its compiled operators do not load into this torch; the rest works'
    return 'untouched'


def _mmcv_state() -> str:
    if compat.mmcv_ext_is_stand_in():
        return 'stand-in: nms, softnms, roi_align, sigmoid_focal_loss in Python; no other op'
    return 'untouched'


if __name__ == '__main__':
    sys.stdout.write(report() + '\n')
