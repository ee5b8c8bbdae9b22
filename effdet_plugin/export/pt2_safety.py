"""What a ``.pt2`` may hold, so that loading it runs nothing of it.

`torch.export.load` unpickles what an archive marks as pickled, evaluates expressions of sizes as
Python (by sympy), looks up any attribute of torch as an operator, and imports modules that the
structure of inputs names. Files of ours need none of it, so an archive is held against what ours
have, and packed again from what was looked at: two readers of zip may see different members.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from effdet_plugin.errors import CheckpointError

_MEMBERS = re.compile(
    r'data/weights/weight_\d+|data/weights/model_weights_config\.json'
    r'|data/constants/tensor_\d+|data/constants/model_constants_config\.json'
    r'|models/model\.json|data/sample_inputs/model\.pt|extra/[\w.]+'
    r'|archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id'
    r'|\.format_version|\.storage_alignment'
)
_OPERATORS = re.compile(
    r'torch\.ops\.aten\.\w+\.\w+|torch\.ops\.higher_order\.while_loop|_operator\.[a-z]+'
    r'|torch\.sym_[a-z]+|math\.[a-z]+'
)
_FILE_OPERATORS = ('from_file', 'save', 'load')  # of aten; these open files
_WORDS = {
    'Symbol', 'Integer', 'Rational', 'Float', 'Add', 'Mul', 'Pow', 'Max', 'Min', 'Mod', 'Eq', 'Ne',
    'Lt', 'Le', 'Gt', 'Ge', 'FloorDiv', 'PythonMod', 'CleanDiv', 'CeilDiv', 'ModularIndexing',
    'IntTrueDiv', 'FloatTrueDiv', 'ToFloat', 'TruncToInt', 'FloorToInt', 'CeilToInt', 'RoundToInt',
    'StrictGreaterThan', 'GreaterThan', 'StrictLessThan', 'LessThan', 'Equality', 'Unequality',
    'And', 'Or', 'Not', 'Where', 'positive', 'nonnegative', 'integer', 'True', 'False', 'None',
    'precision', 'evaluate', 'true', 'false',
}  # fmt: skip
_SYMBOL = re.compile(r'[suf]\d+|zuf\d+')
_SIGNS = re.compile(r"[\w\s(),=*/+\-<>']*|[\w\s(),=*/+\-<>']*'-?\d+\.\d+'[\w\s(),=*/+\-<>']*")
_SPEC_TYPES = ('builtins.tuple', 'builtins.list', 'builtins.dict', None)
_SPEC_CONTEXTS = ('null', '[]', None)
_EMPTY = ('guards_code', 'treespec_namedtuple_fields', 'custom_obj_values', 'metadata')
_MAX_MEMBERS = 20_000


def checked_members(content: bytes) -> dict[str, bytes]:
    """Return the members of an archive by their names without the top folder, after all checks.

    Args:
        content: Of the file.

    Raises:
        CheckpointError: It is no archive of an exported program, or holds what ours never do.
    """
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            members = _read(archive, len(content))
        for name, part in members.items():
            if name.endswith('_config.json'):
                _check_payloads(json.loads(part))
        _check_program(json.loads(members['models/model.json']))
    except CheckpointError:
        raise
    except (BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f'damaged, or cut ({str(error)[:80]}); export it again') from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise CheckpointError('no exported program of PyTorch, or damaged') from None
    return members


def packed(members: dict[str, bytes]) -> io.BytesIO:
    """Return an archive of these members."""
    made = io.BytesIO()
    with ZipFile(made, 'w', ZIP_STORED) as archive:
        for name, part in members.items():
            archive.writestr(f'model/{name}', part)
    made.seek(0)
    return made


def _read(archive: ZipFile, num_bytes: int) -> dict[str, bytes]:
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS or sum(info.file_size for info in infos) > num_bytes:
        raise CheckpointError('its members claim more bytes than the file has')
    members: dict[str, bytes] = {}
    for info in infos:
        name = info.filename.partition('/')[2]
        if not _MEMBERS.fullmatch(name) or name in members or info.compress_type != ZIP_STORED:
            raise CheckpointError(f'holds {info.filename[:80]!r}, as our files never do')
        members[name] = archive.read(info)
    if members.get('data/sample_inputs/model.pt'):
        raise CheckpointError('holds pickled examples of its input, as our files never do')
    return members


def _check_payloads(config: Any) -> None:
    for name, payload in config['config'].items():
        if payload['use_pickle'] is not False:
            raise CheckpointError(f'{name[:80]} is pickled, as in our files nothing is')


def _check_program(program: Any) -> None:
    for key, value in _items(program):
        if key == 'target' and not _is_operator(value):
            raise CheckpointError(f'calls {str(value)[:80]!r}, as our files never do')
        if key == 'expr_str' and not _is_size(value):
            raise CheckpointError(f'computes a size by {str(value)[:80]!r}, as our files never do')
        if key in ('in_spec', 'out_spec') and not _is_plain_spec(value):
            raise CheckpointError('has inputs or outputs of another structure than our files')
        if key in _EMPTY and value:
            raise CheckpointError(f'has {key}, as our files never do')


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of every dict below a value."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
            left += value.values()
        elif isinstance(value, list):
            left += value


def _is_operator(name: Any) -> bool:
    return (
        isinstance(name, str)
        and _OPERATORS.fullmatch(name) is not None
        and not any(word in name.split('.') for word in _FILE_OPERATORS)
    )


def _is_size(text: Any) -> bool:
    """Whether a text is arithmetic on sizes, made of known words only."""
    if not isinstance(text, str) or len(text) > 10_000 or not _SIGNS.fullmatch(text):
        return False
    words = re.findall(r'[^\W\d]\w*', text)
    return '__' not in text and all(w in _WORDS or _SYMBOL.fullmatch(w) for w in words)


def _is_plain_spec(text: Any) -> bool:
    if text is None:
        return True
    return all(
        (key != 'type' or value in _SPEC_TYPES) and (key != 'context' or value in _SPEC_CONTEXTS)
        for key, value in _items(json.loads(text))
    )
