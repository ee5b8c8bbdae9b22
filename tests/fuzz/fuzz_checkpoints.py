"""Mutants of checkpoints of whole networks in every format: entries, headers and bytes."""

import copy
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Action, Maker
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mutants import mutant_bytes, mutants_of
from reference_variables import variables
from tf_writer import bytes_field, entry, varint_field, write_bundle, write_table
from torch import Tensor

from effdet_plugin.config import load
from effdet_plugin.config.embedded import embed
from effdet_plugin.convert import convert
from effdet_plugin.convert.networks import Structure, state_shapes
from effdet_plugin.inference import Detector
from effdet_plugin.weights_only import is_finite
from support import REPOSITORY

State = dict[str, Any]
_RESHAPES: tuple[Callable[[Tensor], Tensor], ...] = (
    Tensor.flatten, lambda value: value[None], lambda value: value.flatten()[:0],
    lambda value: value.transpose(0, -1) if value.dim() else value[None],
    lambda value: torch.cat([value.flatten()] * 2),
)  # fmt: skip
_HUGE = ((1 << 20, 1 << 20), (1 << 40,), (3, 1 << 16, 1 << 16), (1,) * 40)


@cache
def ours() -> dict[str, Any]:
    """A checkpoint of ours of a Lite0 of two classes, all zero."""
    state = {
        name: torch.zeros(shape) for name, shape in state_shapes(Structure('lite0', 2)).items()
    }
    return {'meta': {'dataset_meta': {'classes': ['a', 'b']}, 'epoch': 3}, 'state_dict': state}


@cache
def reference() -> dict[str, Tensor]:
    """Variables of google/automl's D0 by name, all zero."""
    return {name: torch.zeros(shape) for name, shape in variables('d0').items()}


def mutant_state(state: State, chance: random.Random) -> State:
    """One to three entries renamed, reshaped, not finite, of another type, lost, doubled, huge."""
    mutant = dict(state)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(mutant))
        value, other = mutant[name], chance.choice(list(mutant))
        what = chance.randrange(9)
        if what == 0:
            renamed = chance.choice(
                (f'{name}x', name[:-1], other, f'module.{name}', '', 'x\x1b[2J')
            )
            mutant[renamed] = mutant.pop(name)
        elif what == 1:
            mutant[name] = chance.choice(_RESHAPES)(value)
        elif what == 2:
            types = (torch.float64, torch.float16, torch.int64, torch.bool, torch.uint8)
            mutant[name] = value.to(chance.choice(types))
        elif what == 3 and value.is_floating_point() and value.numel():
            value = value.clone()
            value.view(-1)[-1] = chance.choice((float('nan'), float('inf'), 3e38))
            mutant[name] = value
        elif what == 4:
            del mutant[name]
        elif what == 5:
            mutant[name], mutant[other] = mutant[other], mutant[name]
        elif what == 6:
            mutant[f'{name}{chance.choice(("_1", "/Momentum", "/ExponentialMovingAverage"))}'] = (
                value
            )
        elif what == 7:  # all of one part, as a file of another network lacks it
            part = name.split('.')[0].split('/')[0] + chance.choice(('', '.', '/'))
            mutant = {k: v for k, v in mutant.items() if not k.startswith(part)} or mutant
        else:
            mutant[name] = torch.zeros(1).expand(chance.choice(_HUGE))
    return mutant


def as_bytes(content: Any, is_zip: bool) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=is_zip)
    return out.getvalue()


def conversion(path: Path, chance: random.Random) -> Action:
    """Convert with one of the options."""
    options = chance.choice(({}, {'raw': True}, {'classes': 90}, {'to': 'npz'}, {'to': 'effdet'}))

    def action() -> None:
        converted = convert(path, **options)
        assert all(map(is_finite, converted.state_dict.values()))
        json.dumps(converted.report.to_dict())

    return action


def pth(is_zip: bool, folder: Path, chance: random.Random) -> Action:
    """Entries of the network, everything beside them, the pickle, or bytes of the file."""
    content, what = ours(), chance.random()
    if what < 0.5:
        content = {**content, 'state_dict': mutant_state(content['state_dict'], chance)}
    elif what < 0.75:
        content = mutants_of(content, chance)
    data = as_bytes(content, is_zip)
    if what > 0.75:
        data = _other_pickle(data, chance) if is_zip and what > 0.85 else mutant_bytes(data, chance)
    path = folder / 'x.pth'
    path.write_bytes(data)
    return conversion(path, chance)


def _other_pickle(data: bytes, chance: random.Random) -> bytes:
    """The zip file with another pickle; its other members and checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(out, 'w') as file:
        for name in whole.namelist():
            member = whole.read(name)
            is_it = name.endswith('data.pkl')
            file.writestr(name, mutant_bytes(member, chance) if is_it else member)
    return out.getvalue()


def npz(folder: Path, chance: random.Random) -> Action:
    """Entries, headers of arrays that claim another shape or type, or bytes."""
    out, what = io.BytesIO(), chance.random()
    state = mutant_state(dict(reference()), chance) if what < 0.6 else reference()
    lied = chance.choice(list(state)) if 0.6 < what < 0.8 else None
    with zipfile.ZipFile(
        out, 'w', chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as file:
        for name, value in state.items():
            is_huge = value.numel() > 1 << 24
            data = _npy((value.flatten()[:1] if is_huge else value).numpy())
            if is_huge or name == lied:
                data = _lying(data, chance)
            file.writestr(name.replace('/', '|') + '.npy', data)
    data = out.getvalue()
    path = folder / 'x.npz'
    path.write_bytes(mutant_bytes(data, chance) if what > 0.8 else data)
    return conversion(path, chance)


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _lying(data: bytes, chance: random.Random) -> bytes:
    """An array whose header says something else."""
    length = int.from_bytes(data[8:10], 'little')
    shape = chance.choice((*_HUGE, (-1,), (1 << 62, 8), ()))
    types = ('<f4', '>f8', '|O', '<U9', '|V16', '<c8', '<M8[s]', '<f2', '|b1')
    header = repr({'descr': chance.choice(types), 'fortran_order': chance.random() < 0.5,
                   'shape': shape})  # fmt: skip
    new = header.encode().ljust(length) if chance.random() < 0.8 else b'(' * length
    return data[:8] + len(new).to_bytes(2, 'little') + new + data[10 + length :]


def h5(folder: Path, chance: random.Random) -> Action:
    """Datasets, of other types, sizes that nobody wrote, links, groups, or bytes."""
    import h5py

    path, what = folder / 'x.h5', chance.random()
    state = mutant_state(dict(reference()), chance) if what < 0.5 else reference()
    odd = chance.choice(list(state)) if 0.5 < what < 0.75 else None
    with h5py.File(path, 'w') as file:
        for name, value in state.items():
            at = f'{name.split("/")[0] or "x"}/{name or "x"}:0'.replace('\x1b', '')
            if value.numel() > 1 << 24:
                file.create_dataset(at, (1 << 16, 1 << 16, 4), 'f4', chunks=(64, 64, 4))
            elif name == odd:
                _odd_dataset(file, at, chance)
            elif at not in file and value.dim() <= 32:  # all that HDF5 has
                file[at] = value.numpy()
    if what > 0.75:
        path.write_bytes(mutant_bytes(path.read_bytes(), chance))
    return conversion(path, chance)


def _odd_dataset(file: Any, at: str, chance: random.Random) -> None:
    import h5py

    what = chance.randrange(7)
    if what == 0:
        file[at] = h5py.SoftLink(chance.choice(('/', '/nowhere', at)))
    elif what == 1:
        file[at] = h5py.ExternalLink('/etc/passwd', '/x')
    elif what == 2:
        file[at] = np.array([b'text'], dtype=object if chance.random() < 0.5 else 'S4')
    elif what == 3:
        file.create_group(at)
    elif what == 4:
        file[at] = h5py.Empty('f4')
    elif what == 5:
        file.create_dataset(at, (1 << 28,), 'f4', chunks=(1 << 20,), compression='gzip')
    else:
        file.create_dataset(at, (1 << 40,), 'f4', chunks=(1 << 16,), maxshape=(None,))


def bundle(folder: Path, chance: random.Random) -> Action:
    """Entries, of shapes, places and checksums that do not fit, bytes of the index or the data."""
    what, prefix = chance.random(), folder / 'model'
    state = dict(reference())
    if what < 0.5:
        state = mutant_state(state, chance)
        state = {k or 'x': v for k, v in state.items() if v.numel() < 1 << 24}
        state = {k: v if v.dtype != torch.uint8 else v.float() for k, v in state.items()}
    write_bundle(prefix, state)
    index, data = prefix.with_suffix('.index'), next(folder.glob('*.data-*'))
    if what > 0.9:
        data.write_bytes(mutant_bytes(data.read_bytes(), chance))
    elif what > 0.75:
        index.write_bytes(mutant_bytes(index.read_bytes(), chance))
    elif what > 0.5:
        index.write_bytes(_lying_index(state, chance))
    return conversion(chance.choice((folder, prefix, index)), chance)


def _lying_index(state: State, chance: random.Random) -> bytes:
    """A whole table with good checksums, of which some entries say odd things."""
    shards = chance.choice((0, 1, 1, 1, 2, 1 << 31, 1 << 63))
    entries = {b'': varint_field(1, shards) + bytes_field(3, varint_field(1, 1))}
    offset, odd = 0, set(chance.sample(list(state), 3))
    for name, value in sorted(state.items()):
        shape, size = tuple(value.shape), value.numel() * 4
        numbers = [1, 0, offset, size]
        if name in odd:
            numbers[chance.randrange(4)] = chance.choice(
                (0, 2, 7, 99, 1 << 31, 1 << 62, (1 << 64) - 1)
            )
            shape = chance.choice((*_HUGE, shape, (1 << 63,), (0,)))
        entries[name.encode()] = entry(numbers[0], shape, *numbers[1:3], bytes(8), 0)
        if name not in odd or chance.random() < 0.5:
            fields = varint_field(1, numbers[0]) + bytes_field(
                2, b''.join(bytes_field(2, varint_field(1, side)) for side in shape)
            )
            entries[name.encode()] = (
                fields + varint_field(3, numbers[1]) + varint_field(4, numbers[2])
                + varint_field(5, numbers[3])
            )  # fmt: skip
        offset += size
    return write_table(entries)


def archive(folder: Path, chance: random.Random) -> Action:
    """An archive of a bundle or another checkpoint: members, headers, or bytes."""
    inner = folder / 'inner'
    inner.mkdir()
    chance.choice((bundle, bundle, partial(pth, True), npz))(inner, chance)
    mode, out = chance.choice(('w', 'w:gz', 'w:gz')), io.BytesIO()
    with (
        tarfile.open(fileobj=out, mode=mode, compresslevel=1)
        if mode == 'w:gz'
        else tarfile.open(fileobj=out, mode=mode) as file
    ):
        for member in sorted(inner.iterdir()):
            info = file.gettarinfo(member, chance.choice((member.name, f'a/b/{member.name}')))
            what, content = chance.randrange(12), member.read_bytes()
            if what == 0:
                info.type = chance.choice(
                    (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b'9')
                )
                info.linkname = '/etc/passwd'
            elif what == 1:
                info.name = chance.choice(('../x', '/abs', '\x1b[2J', 'x' * 300, ''))
            elif what == 2:
                info.pax_headers = {'path': 'y' * 90_000, 'GNU.sparse.major': '1'}
            elif what == 3:
                content = content[: len(content) // 2]
                info.size = len(content)
            for _ in range(chance.choice((1,) * 9 + (2,))):
                file.addfile(info, io.BytesIO(content))
    data = out.getvalue()
    path = folder / chance.choice(('x.tar.gz', 'x.tgz', 'x'))
    path.write_bytes(mutant_bytes(data, chance) if chance.random() < 0.3 else data)
    return conversion(path, chance)


@cache
def tiny() -> tuple[Config, dict[str, Any]]:
    """Config and checkpoint of a small network, its config inside."""
    init_default_scope('mmdet')
    cfg = load(REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py', image_size=64)
    cfg.model.backbone.update(model_name='test_efficientnet', pretrained=False)
    cfg.model.neck.update(in_channels=[32, 48, 64], out_channels=16, num_cells=1)
    cfg.model.bbox_head.update(in_channels=16, stacked_convs=1, num_classes=2)
    network = MODELS.build(cfg.model)
    meta = {'dataset_meta': {'classes': ['a', 'b']}, 'config': embed(cfg)}
    return cfg, {'meta': meta, 'state_dict': dict(network.state_dict())}


def detector(folder: Path, chance: random.Random) -> Action:
    """The checkpoint with a given config, or its own with values changed."""
    cfg, content = tiny()
    own = chance.random() < 0.6
    content = {**content, 'meta': dict(content['meta'])}
    if own and chance.random() < 0.7:
        config = json.loads(content['meta']['config'])
        place = chance.choice(('model', 'model', 'test_dataloader'))
        config[place] = mutants_of(config[place], chance)
        content['meta']['config'] = json.dumps(config, default=str, skipkeys=True)
    elif chance.random() < 0.7:
        content['state_dict'] = mutant_state(content['state_dict'], chance)
    else:
        content = mutants_of(content, chance)
    path = folder / 'x.pth'
    path.write_bytes(as_bytes(content, chance.random() < 0.5))
    image = np.zeros((40, 56, 3), np.uint8)

    def action() -> None:
        Detector(None if own else copy.deepcopy(cfg), path, device='cpu')(image)

    return action


KINDS: dict[str, Maker] = {
    'pth': partial(pth, True), 'legacy pth': partial(pth, False), 'npz': npz, 'h5': h5,
    'tf bundle': bundle, 'archive': archive, 'detector': detector,
}  # fmt: skip
