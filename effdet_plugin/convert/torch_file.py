"""PyTorch files: our own, effdet's, and those of other ports. Nothing in them is run."""

import argparse
import ast
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from effdet_plugin.convert.coco_ids import NAMES
from effdet_plugin.convert.key_map import KeyMap
from effdet_plugin.convert.key_map_ports import MMDET, MMDET_YXYX, ZYLO117
from effdet_plugin.convert.key_map_pytorch import EFFDET, OWN
from effdet_plugin.convert.sources import Source
from effdet_plugin.errors import CheckpointError
from effdet_plugin.files import sha256
from effdet_plugin.weights_only import load_weights_only

# Where a training loop puts its weights; effdet's own averages them in `state_dict_ema`.
_AVERAGED_KEYS = ('state_dict_ema', 'state_dict', 'model')
# mmengine's EMAHook saves the averages as `state_dict` and the raw weights as `ema_state_dict`.
_MMENGINE_RAW_KEYS = ('ema_state_dict', 'state_dict')
_RAW_KEYS = {OWN.name: _MMENGINE_RAW_KEYS, MMDET.name: _MMENGINE_RAW_KEYS}
_KEY_MAPS = {
    r'^(module\.)?(neck\.cells|bbox_head\.cls_tower)\.': OWN,
    r'^(module\.|model\.)*(fpn\.cell|class_net\.conv_rep)\.': EFFDET,
    r'^(module\.|model\.)*backbone_net\.model\.': ZYLO117,
    r'^(module\.)?neck\.bifpn\.': MMDET,
}
# Of mmdetection's project, as its configs have them: what weights do not tell, and our parts have
# in this form alone.
_MMDET_PARTS = {
    'octave_base_scale': 4, 'scales_per_octave': 3, 'ratios': [1.0, 0.5, 2.0],
    'center_offset': 0.5, 'strides': [8, 16, 32, 64, 128], 'target_means': [0.0] * 4,
    'target_stds': [1.0] * 4, 'eps': 1e-3, 'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
}  # fmt: skip
_MMDET_OFF = ('conv_bn_act_pattern',)  # may be left out, and must not be on
_YXYX = {'YXYXAnchorGenerator', 'YXYXDeltaXYWHBBoxCoder'}


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
    key_map, note = _key_map_of(averaged), ''
    raw_keys = _RAW_KEYS.get(key_map.name, ('state_dict', 'model'))
    key, state = _find_state(content, raw_keys if raw else _AVERAGED_KEYS)
    meta = content.get('meta')
    if key_map is MMDET:
        meta = _coco_slots(meta)
        key_map, note = _mmdet_form(meta, state)
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
        note=note,
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
    raise CheckpointError(f'no EfficientDet weights: its first tensor is {next(iter(state))}')


def _mmdet_form(meta: Any, state: Mapping[str, Tensor]) -> tuple[KeyMap, str]:
    """Return how mmdetection's project ordered anchors and deltas, and a note that says so.

    The checkpoint's config tells it. Without one only files of the project's
    ``convert_tf_to_pt.py`` are known: they have no BN counters.

    Raises:
        CheckpointError: Trained with other anchors, deltas, norms or pixels than our configs can
            have, or their order is not known.
    """
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    if isinstance(text, str):
        found = _constants(text)
        for name, usual in _MMDET_PARTS.items():
            values = [list(v) if isinstance(v, tuple) else v for v in found.get(name, ())]
            others = [value for value in values if value != usual]
            if others or not values:
                own = f'{name}={others[0]}' if others else f'no {name}'
                raise CheckpointError(
                    f'trained with {own} in its config, where only {usual} converts'
                )
        for name in _MMDET_OFF:
            if any(found.get(name, ())):
                raise CheckpointError(f'trained with {name}=True, which does not convert')
        both = _YXYX & {str(name) for name in found.get('type', ())}
        if len(both) == 1:
            raise CheckpointError(
                f'trained with {min(both)} but not with {min(_YXYX - both)}: the order of its '
                'outputs is not known'
            )
        is_yxyx, why = bool(both), 'as its config says'
    elif any(name.endswith('num_batches_tracked') for name in state):
        raise CheckpointError(
            'it carries no config, which tells the order of its anchors and deltas: give the '
            'checkpoint as mmdetection wrote it'
        )
    else:
        is_yxyx, why = True, 'as it has no BN counters'
    outputs = state.get('bbox_head.reg_header.pointwise_conv.bias')
    if outputs is not None and len(outputs) != 36:
        raise CheckpointError(f'{len(outputs) // 4} anchors at each place, where only 9 convert')
    order = "the reference's (convert_tf_to_pt.py)" if is_yxyx else "mmdetection's"
    return MMDET_YXYX if is_yxyx else MMDET, f'anchors and deltas: in the order of {order}, {why}'


def _constants(text: str) -> dict[str, list[Any]]:
    """Return the plain values in a config's text by the names that they are given; none is run."""
    found: dict[str, list[Any]] = {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f'the config in its meta cannot be read: {error}') from error
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            try:
                found.setdefault(node.arg, []).append(ast.literal_eval(node.value))
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                continue  # a dict(...) call, whose own keywords are walked
    return found


def _coco_slots(meta: Any) -> Any:
    """Return a meta without the project's 90 COCO names, ten of which are None."""
    data = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    names = data.get('classes') if isinstance(data, Mapping) else None
    if isinstance(names, list | tuple) and tuple(name for name in names if name) == NAMES:
        return {key: value for key, value in meta.items() if key != 'dataset_meta'}
    return meta
