"""What a ``.pt2`` may not hold, since loading it would run it."""

import io
import json
import zipfile

import pytest
import torch

from effdet_plugin.errors import CheckpointError
from effdet_plugin.export.pt2_safety import checked_members, packed


def archive() -> bytes:
    exported = torch.export.export(
        torch.nn.Linear(2, 3), (torch.zeros(4, 2),), dynamic_shapes=({0: torch.export.Dim('b')},)
    )
    exported._example_inputs = None  # type: ignore[assignment]
    for node in exported.graph.nodes:
        for key in ('stack_trace', 'nn_module_stack', 'source_fn_stack', 'torch_fn', 'from_node'):
            node.meta.pop(key, None)
    file = io.BytesIO()
    torch.export.save(exported, file)
    return file.getvalue()


@pytest.fixture(scope='module')
def members() -> dict[str, bytes]:
    return checked_members(archive())


def test_packed__loads_and_computes(members: dict[str, bytes]) -> None:
    module = torch.export.load(packed(members)).module()
    assert module(torch.zeros(5, 2)).shape == (5, 3)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (b'torch.ops.aten.linear.default', b'torch.hub.load'),
        (b'torch.ops.aten.linear.default', b'torch.ops.aten.from_file.default'),
        (b"Symbol('s", b"__import__('os').system('s"),
        (b'"guards_code": []', b'"guards_code": ["1"]'),
        (b'builtins.tuple', b'collections.defaultdict'),
    ],
)
def test_program__that_would_run_code(members: dict[str, bytes], old: bytes, new: bytes) -> None:
    changed = members['models/model.json'].replace(old, new)
    assert changed != members['models/model.json']
    with pytest.raises(CheckpointError):
        checked_members(packed({**members, 'models/model.json': changed}).getvalue())


def test_payload__pickled(members: dict[str, bytes]) -> None:
    name = 'data/weights/model_weights_config.json'
    config = json.loads(members[name])
    next(iter(config['config'].values()))['use_pickle'] = True
    with pytest.raises(CheckpointError, match='pickled'):
        checked_members(packed({**members, name: json.dumps(config).encode()}).getvalue())


@pytest.mark.parametrize('name', ['data/aotinductor/model/a.so', 'data/constants/custom_obj_0'])
def test_member__of_another_kind(members: dict[str, bytes], name: str) -> None:
    with pytest.raises(CheckpointError, match='never do'):
        checked_members(packed({**members, name: b'x'}).getvalue())


def test_member__twice(members: dict[str, bytes]) -> None:
    file = packed(members)
    with pytest.warns(UserWarning, match='Duplicate'), zipfile.ZipFile(file, 'a') as again:
        again.writestr('model/models/model.json', b'{}')
    with pytest.raises(CheckpointError):
        checked_members(file.getvalue())


def test_cut() -> None:
    with pytest.raises(CheckpointError, match='damaged'):
        checked_members(archive()[:-200])
