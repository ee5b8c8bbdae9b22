"""TensorFlow checkpoints as a source: where their files are, and which variable a tensor is."""

import re
from pathlib import Path

from torch import Tensor

from effdet_plugin.convert import automl, keras
from effdet_plugin.convert.sources import Source, damage_is_reported, sha256
from effdet_plugin.convert.tensor_bundle import TensorBundle
from effdet_plugin.convert.wire import messages, read_message, text
from effdet_plugin.errors import CheckpointError

GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'
_SLOT = '/.OPTIMIZER_SLOT/'
_DATA_FILE = re.compile(r'\.data-\d{5}-of-\d{5}$')
_MAX_STATE_BYTES = 1 << 20


def find_prefix(path: Path) -> Path | None:
    """Prefix of the checkpoint that a path stands for; None for a file of another format.

    Args:
        path: folder, prefix, ``.index``, ``.data-…`` or ``checkpoint``.

    Raises:
        CheckpointError: A folder without a checkpoint, or with several and no word which.
    """
    if path.is_dir():
        return _prefix_in(path)
    if path.suffix == '.index' or _DATA_FILE.search(path.name):
        return path.with_name(_DATA_FILE.sub('', path.name).removesuffix('.index'))
    if path.name == 'checkpoint' and path.is_file():
        return _prefix_in(path.parent)
    if not path.is_file() and path.with_name(path.name + '.index').is_file():
        return path
    return None


def open_bundle(prefix: Path) -> Source:
    """A source of a TF1 or TF2 checkpoint.

    Raises:
        CheckpointError: It is damaged, or incomplete.
    """
    with damage_is_reported(prefix):
        bundle = TensorBundle(prefix)
        is_object_based = GRAPH in bundle.entries
        keys = _object_keys(bundle) if is_object_based else {name: name for name in bundle.entries}
        digest = sha256(bundle.index_path, *bundle.shards)
    by_path = is_object_based and not all(
        _has_variable_name(name, key) for name, key in keys.items()
    )
    if by_path:
        keys = {_path_name(key): key for key in keys.values()}

    def read(name: str) -> Tensor:
        with damage_is_reported(prefix):
            return bundle.read(keys[name])

    return Source(
        path=prefix,
        format='TF2 object checkpoint' if is_object_based else 'TF1 checkpoint',
        dialect=keras.DIALECT if by_path else automl.DIALECT,
        shapes={name: bundle.entries[key].shape for name, key in keys.items()},
        read=read,
        sha256=digest,
        left_out={GRAPH: 'the graph of objects, read for the names'} if is_object_based else {},
    )


def _prefix_in(folder: Path) -> Path | None:
    names = sorted(path.name.removesuffix('.index') for path in folder.glob('*.index'))
    current = _current_name(folder / 'checkpoint')
    if current in names:
        return folder / current
    if len(names) == 1:
        return folder / names[0]
    if names:
        raise CheckpointError(
            f'{folder}: several checkpoints ({", ".join(names[:5])}): name one of them, as a path'
        )
    raise CheckpointError(f'{folder}: no TensorFlow checkpoint (an .index file) in this folder')


def _current_name(state_file: Path) -> str:
    """Last name of the checkpoint that TensorFlow's `checkpoint` file points to, '' without."""
    if not state_file.is_file() or state_file.stat().st_size > _MAX_STATE_BYTES:
        return ''
    content = state_file.read_text(encoding='utf-8', errors='replace')
    found = re.search(r'^model_checkpoint_path:\s*"(.*)"', content, re.MULTILINE)
    return re.split(r'[/\\]', found.group(1))[-1] if found else ''


def _object_keys(bundle: TensorBundle) -> dict[str, str]:
    """Name -> key of every tensor of an object checkpoint.

    A variable has its full name where the graph of objects tells one, and the path of its
    attributes otherwise; a slot of the optimizer has its variable's name and the slot's behind it.
    """
    graph = read_message(bundle.read_text(GRAPH))
    full_names = {
        text(attribute, 3): text(attribute, 2)
        for node in messages(graph, 1)
        for attribute in messages(node, 2)
    }
    keys: dict[str, str] = {}
    for key in bundle.entries:
        if key == GRAPH:
            continue
        variable, _, slot = key.partition(_SLOT)
        full_name = full_names.get(variable + _VALUE if slot else key, '')
        name = (
            full_name + _slot_suffix(slot) if _is_variable(key) and full_name else _path_name(key)
        )
        if name in keys:
            raise CheckpointError(f'{bundle.prefix}: two variables have the name {name}')
        keys[name] = key
    return keys


def _path_name(key: str) -> str:
    variable, _, slot = key.removesuffix(_VALUE).partition(_SLOT)
    return variable + _slot_suffix(slot)


def _slot_suffix(slot: str) -> str:
    """What stands behind a variable's name for a slot such as ``optimizer/momentum``."""
    name = slot.removesuffix(_VALUE).rpartition('/')[2]
    if not name:
        return ''
    # The slot of a moving-average optimizer holds what TF1 has as a variable of its own.
    return automl.DIALECT.average if name == 'average' else f'/{name}'


def _is_variable(key: str) -> bool:
    """Whether a key is of the network (and not of the optimizer or a counter)."""
    return re.search(rf'(^|/)({keras.ROOTS})/', key) is not None


def _has_variable_name(name: str, key: str) -> bool:
    return not _is_variable(key) or re.search(rf'(^|/)({automl.ROOTS})/', name) is not None
