"""PyTorch files: effdet's, and our own checkpoints. Nothing in them is run."""

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from effdet_plugin.convert.key_map import KeyMap
from effdet_plugin.convert.key_map_pytorch import EFFDET, OWN
from effdet_plugin.convert.sources import Source
from effdet_plugin.errors import CheckpointError
from effdet_plugin.files import sha256
from effdet_plugin.weights_only import load_weights_only

# Where a training loop puts its weights; effdet's own averages them in `state_dict_ema`.
_AVERAGED_KEYS = ('state_dict_ema', 'state_dict', 'model')
# mmengine's EMAHook saves the averages as `state_dict` and the raw weights as `ema_state_dict`.
_RAW_KEYS = {EFFDET.name: ('state_dict', 'model'), OWN.name: ('ema_state_dict', 'state_dict')}
_KEY_MAPS = {
    r'^(module\.)?(neck\.cells|bbox_head\.cls_tower)\.': OWN,
    r'^(module\.|model\.)*(fpn\.cell|class_net\.conv_rep)\.': EFFDET,
}
_OTHER_PROJECTS = {
    r'(^|\.)backbone_net\.model\.': 'zylo117',
    r'(^|\.)neck\.bifpn\.': "mmdetection's projects/EfficientDet",
}


def is_torch_zip(path: Path) -> bool:
    """Whether a zip file is PyTorch's (and not ``.npz``); a damaged one is told by its name."""
    if not zipfile.is_zipfile(path):
        return path.suffix != '.npz'
    with zipfile.ZipFile(path) as file:
        return any(name.endswith('data.pkl') for name in file.namelist())


def open_torch(path: Path, raw: bool = False) -> Source:
    """Open the weights of a PyTorch file.

    Args:
        path: the file.
        raw: the weights as they were trained, where the file has averages also.

    Raises:
        CheckpointError: The file is damaged, holds code, or weights of another project.
    """
    # effdet's training files carry their arguments, a class without behaviour.
    content = load_weights_only(path, safe_globals=[argparse.Namespace])
    _, averaged = _find_state(content, _AVERAGED_KEYS)
    key_map = _key_map_of(averaged)
    key, state = _find_state(content, _RAW_KEYS[key_map.name] if raw else _AVERAGED_KEYS)
    meta = content.get('meta')
    others = [str(name) for name in content if key and name not in (key, 'meta')]
    return Source(
        path=path,
        format=f'{key_map.name} .pth',
        key_map=key_map,
        shapes={name: tuple(value.shape) for name, value in state.items()},
        read=state.__getitem__,
        sha256=sha256(path),
        left_out=dict.fromkeys(others, f'state of a training beside {key}'),
        meta=meta if isinstance(meta, Mapping) else {},
    )


def _find_state(content: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, dict[str, Tensor]]:
    """Return the key of the weights ('' where the file holds nothing else), and the weights."""
    key = next((key for key in keys if isinstance(content.get(key), Mapping)), '')
    found = content[key] if key else content
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError('it holds no tensors by name')
    return key, state


def _key_map_of(state: Mapping[str, Tensor]) -> KeyMap:
    for pattern, key_map in _KEY_MAPS.items():
        if any(re.search(pattern, name) for name in state):
            return key_map
    for pattern, project in _OTHER_PROJECTS.items():
        if any(re.search(pattern, name) for name in state):
            raise CheckpointError(f'weights of {project}, for which there is no key map')
    raise CheckpointError(f'no EfficientDet weights: its first tensor is {next(iter(state))}')
