"""PyTorch files: effdet's, and our own checkpoints. Nothing in them is run."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effdet_plugin.convert import effdet, native
from effdet_plugin.convert.rules import Dialect
from effdet_plugin.convert.sources import Source, damage_is_reported, sha256
from effdet_plugin.errors import CheckpointError

# Where a training loop puts its weights; effdet's own averages them in `state_dict_ema`.
_AVERAGED_KEYS = ('state_dict_ema', 'state_dict', 'model')
# mmengine's EMAHook saves the averages as `state_dict` and the raw weights as `ema_state_dict`.
_RAW_KEYS = {'effdet': ('state_dict', 'model'), 'effdet_plugin': ('ema_state_dict', 'state_dict')}
_DIALECTS: dict[str, Dialect] = {
    r'^(module\.)?(neck\.cells|bbox_head\.cls_tower)\.': native.DIALECT,
    r'^(module\.|model\.)*(fpn\.cell|class_net\.conv_rep)\.': effdet.DIALECT,
}
_FOREIGN = {
    r'(^|\.)backbone_net\.model\.': 'zylo117',
    r'(^|\.)neck\.bifpn\.': "mmdetection's projects/EfficientDet",
}


def is_torch_zip(path: Path) -> bool:
    """Whether a zip file is PyTorch's (and not ``.npz``); a damaged one is told by its name."""
    with damage_is_reported(path):
        if not zipfile.is_zipfile(path):
            return path.suffix != '.npz'
        with zipfile.ZipFile(path) as file:
            return any(name.endswith('data.pkl') for name in file.namelist())


def open_torch(path: Path, raw: bool = False) -> Source:
    """A source of the weights of a PyTorch file.

    Args:
        path: the file.
        raw: the weights as they were trained, where the file has averages also.

    Raises:
        CheckpointError: The file is damaged, holds code, or weights of another project.
    """
    content = _load(path)
    _, averaged = _find_state(path, content, _AVERAGED_KEYS)
    dialect = _dialect(path, averaged)
    key, state = _find_state(path, content, _RAW_KEYS[dialect.name] if raw else _AVERAGED_KEYS)
    meta = content.get('meta', {}) if isinstance(content.get('meta'), Mapping) else {}
    others = [name for name in content if key and name not in (key, 'meta')]
    return Source(
        path=path,
        format=f'{dialect.name} .pth',
        dialect=dialect,
        shapes={name: tuple(value.shape) for name, value in state.items()},
        read=state.__getitem__,
        sha256=sha256(path),
        left_out=dict.fromkeys(map(str, others), f'state of a training beside {key}'),
        meta=meta,
    )


def _load(path: Path) -> Mapping[str, Any]:
    with damage_is_reported(path):
        try:
            # effdet's training files carry their arguments, a class without behaviour.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(_unsafe(path, str(error))) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path}: it holds a {type(content).__name__}, not named tensors')
    return content


def _unsafe(path: Path, message: str) -> str:
    found = re.search(r'GLOBAL ([\w.]+)', message)
    if found is None:
        return f'{path}: cut off or damaged, or not a PyTorch file'
    return (
        f'{path}: it holds objects besides tensors ({found.group(1)}), which could run code, and '
        'was not loaded: save the state dict alone'
    )


def _find_state(
    path: Path, content: Mapping[str, Any], keys: tuple[str, ...]
) -> tuple[str, dict[str, Tensor]]:
    """The key under which the weights lie, '' for the file itself, and the weights."""
    key = next((key for key in keys if isinstance(content.get(key), Mapping)), '')
    found = content[key] if key else content
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f'{path}: it holds no tensors by name')
    return key, state


def _dialect(path: Path, state: Mapping[str, Tensor]) -> Dialect:
    for pattern, dialect in _DIALECTS.items():
        if any(re.search(pattern, name) for name in state):
            return dialect
    for pattern, project in _FOREIGN.items():
        if any(re.search(pattern, name) for name in state):
            raise CheckpointError(f'{path}: weights of {project}, for which there is no key map')
    raise CheckpointError(
        f'{path}: no EfficientDet weights: its first tensor is {next(iter(state))}'
    )
