"""COCO weights to start from: found by network, from two servers, converted and kept once."""

import hashlib
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forked import in_processes
from loopback import Server, serving
from reference_variables import variables
from tf_writer import write_bundle

from effdet_plugin.config import load
from effdet_plugin.convert import api, convert, released
from effdet_plugin.convert.api import RELEASES
from effdet_plugin.convert.released import PORTS, PORTS_URL, coco_weights, release_for
from effdet_plugin.download import OFFLINE
from effdet_plugin.errors import CheckpointError
from effdet_plugin.shipped_configs import named_configs

LITE0 = RELEASES['lite0']


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with serving(monkeypatch) as server:
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
        monkeypatch.setattr(api, 'BASE_URL', server.url)
        monkeypatch.setattr(released, 'PORTS_URL', server.url)
        yield server


@pytest.fixture(scope='module')
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Google's form of a Lite0, all zeros."""
    folder = tmp_path_factory.mktemp('archive')
    values = {name: torch.zeros(shape) for name, shape in variables('lite0').items()}
    write_bundle(folder / 'run' / 'model', values)
    with tarfile.open(folder / 'x.tgz', 'w:gz', compresslevel=1) as file:
        file.add(folder / 'run', 'efficientdet-lite0')
    return (folder / 'x.tgz').read_bytes()


@pytest.fixture(scope='module')
def port(archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """effdet's form of the same."""
    folder = tmp_path_factory.mktemp('port')
    (folder / 'x.tgz').write_bytes(archive)
    convert(folder / 'x.tgz', 'lite0', 90, to='effdet').save(folder / 'x.pth')
    return (folder / 'x.pth').read_bytes()


def offer_port(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve a file under a name that tells its hash, as effdet does; return the name."""
    digest = hashlib.sha256(content).hexdigest()
    length = next(n for n in range(8, 65) if not digest[:n].isdecimal())
    name = f'lite0-{digest[:length]}.pth'
    server.files[name] = content
    monkeypatch.setitem(PORTS, 'lite0', name)
    return name


def classes_in(path: Path) -> int:
    checkpoint = torch.load(path, weights_only=True)
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 80
    rows: int = checkpoint['state_dict']['bbox_head.cls_tower.predict.pointwise.bias'].shape[0]
    return rows // 9


def test_coco_weights__once(server: Server, archive: bytes) -> None:
    server.files[LITE0] = archive
    first = coco_weights('lite0')
    assert classes_in(first) == 80
    assert first.name == 'google-lite0.pth'
    server.server_close()
    assert coco_weights('lite0') == first
    assert coco_weights('lite0', network=False) == first
    assert len(server.requests) == 1


def test_coco_weights__kept_ones_need_no_network(
    server: Server, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OFFLINE, '1')
    with pytest.raises(CheckpointError, match=f'{OFFLINE} is set, and there are none'):
        coco_weights('lite0')
    monkeypatch.setenv(OFFLINE, '0')
    with pytest.raises(CheckpointError, match='no download was tried'):
        coco_weights('lite0', network=False)
    assert server.requests == []
    server.files[LITE0] = archive
    path = coco_weights('lite0')
    monkeypatch.setenv(OFFLINE, '1')
    assert coco_weights('lite0') == path


def test_coco_weights__changed_in_the_cache_are_converted_again(
    server: Server, archive: bytes
) -> None:
    server.files[LITE0] = archive
    path = coco_weights('lite0')
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    assert coco_weights('lite0').read_bytes() == before
    assert len(server.requests) == 1, 'the archive is kept, too'


def test_coco_weights__404_then_the_port(
    server: Server, port: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_port(server, port, monkeypatch)
    path = coco_weights('lite0')
    assert path.name == 'effdet-lite0.pth'
    assert classes_in(path) == 80
    assert len(server.requests) == 2
    assert coco_weights('lite0') == path
    assert len(server.requests) == 2


def test_coco_weights__a_damaged_archive_then_the_port(
    server: Server, archive: bytes, port: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[LITE0] = archive[:-100]
    name = offer_port(server, port, monkeypatch)
    assert coco_weights('lite0').name == 'effdet-lite0.pth'
    # Nothing of it is kept: the next attempt is a download.
    del server.files[name]
    server.files[LITE0] = archive
    for path in Path(os.environ['TORCH_HOME']).rglob('effdet-lite0.pth'):
        path.unlink()
    assert coco_weights('lite0').name == 'google-lite0.pth'


def test_coco_weights__another_hash_is_refused(
    server: Server, port: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = offer_port(server, port, monkeypatch)
    server.files[name] = port[:-1] + b'?'
    with pytest.raises(CheckpointError, match=r'google: 404 .*; effdet: .*damaged or exchanged'):
        coco_weights('lite0')
    server.files[name] = port
    assert coco_weights('lite0').name == 'effdet-lite0.pth'


def test_coco_weights__silent_servers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that accepts nothing, as behind a firewall that swallows what it gets."""
    monkeypatch.setattr(released, 'PATIENCE_S', 0.3)
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen(8)
        url = f'http://127.0.0.1:{silent.getsockname()[1]}/'
        monkeypatch.setattr(api, 'BASE_URL', url)
        monkeypatch.setattr(released, 'PORTS_URL', url)
        start = time.monotonic()
        words = r'google: no answer within 0\.3 s; effdet: no answer within 0\.3 s'
        with pytest.raises(CheckpointError, match=words):
            coco_weights('lite0')
    assert time.monotonic() - start < 5


def test_coco_weights__silent_then_the_port(
    server: Server, port: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, 'PATIENCE_S', 1.0)
    offer_port(server, port, monkeypatch)
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen(8)
        monkeypatch.setattr(api, 'BASE_URL', f'http://127.0.0.1:{silent.getsockname()[1]}/')
        assert coco_weights('lite0').name == 'effdet-lite0.pth'


def _start(url: str, out: str) -> None:
    api.BASE_URL = url
    path = coco_weights('lite0')
    Path(f'{out}{os.environ["RANK"]}').write_text(str(path), encoding='utf-8')


@pytest.mark.dist
def test_coco_weights__two_processes_download_once(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    server.files[LITE0] = archive
    assert in_processes(2, _start, server.url, str(tmp_path / 'out')) == [0, 0]
    found = {(tmp_path / f'out{rank}').read_text(encoding='utf-8') for rank in range(2)}
    assert len(found) == 1
    assert len(server.requests) == 1


def test_ports__are_effdets() -> None:
    config = pytest.importorskip('effdet.config.model_config')
    for release, file in PORTS.items():
        name = f'tf_efficientdet_{release.replace("-advprop", "_ap")}'
        assert config.efficientdet_model_param_dict[name]['url'] == PORTS_URL + file
    assert set(RELEASES) - set(PORTS) == {f'd{x}-640' for x in range(2, 7)}


@pytest.mark.parametrize('name', sorted(named_configs()))
def test_release_for__our_configs(name: str) -> None:
    expected = name.removesuffix('_coco').removesuffix('_mediapipe').replace('_', '-')
    others = {**dict.fromkeys(('custom-voc', 'custom', 'quickstart'), 'lite0')}
    others |= dict.fromkeys(('d0-voc2012', 'table6-fast'), 'd0')
    expected = others.get(expected, expected)
    assert release_for(load(name)) == (expected if expected in RELEASES else None)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'model.neck.num_cells': 2}, None),
        ({'model.neck.pool_type': 'max_zero'}, None),
        ({'model.backbone.model_name': 'tf_efficientnet_lite1'}, None),
        ({'model.backbone.model_name': 'tf_efficientnet_lite0.in1k'}, 'lite0'),
        ({'model.bbox_head.anchor_generator.octave_base_scale': 2.0}, 'lite0'),
        ({'model.bbox_head.num_classes': 3, 'model.neck.norm_momentum': 0.2}, 'lite0'),
    ],
)
def test_release_for__what_weights_depend_on(
    options: dict[str, object], expected: str | None
) -> None:
    assert release_for(load('custom_coco', options=options)) == expected


@pytest.mark.parametrize(('name', 'size', 'expected'), [('d2', 640, 'd2-640'), ('d2', 512, 'd2')])
def test_release_for__the_size_decides_between_equal_networks(
    name: str, size: int, expected: str
) -> None:
    assert release_for(load('custom_coco', network=name, image_size=size)) == expected
