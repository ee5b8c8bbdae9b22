"""Google's releases by name."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loopback import Server, serving
from reference_variables import variables
from tf_writer import write_bundle

from effdet_plugin.convert import api, convert
from effdet_plugin.convert.api import RELEASES, fetch_release, release_name
from effdet_plugin.errors import CheckpointError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as server:
        yield server


def test_fetch_release__no_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, 'BASE_URL', server.url)
    server.server_close()
    with pytest.raises(CheckpointError, match=r'd0: cannot be downloaded .*check the network'):
        fetch_release('d0', tmp_path)


@pytest.mark.parametrize(
    ('src', 'expected'),
    [
        ('d0', 'd0'),
        ('D7x', 'd7x'),
        ('efficientdet-d3-640', 'd3-640'),
        ('d1-advprop', 'd1-advprop'),
        ('lite2', 'lite2'),
        ('d9', None),
        ('d0.npz', None),
        ('folder/d0', None),
    ],
)
def test_release_name(src: str, expected: str | None) -> None:
    assert release_name(src) == expected


def test_release_name__a_path_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'd0').mkdir()
    assert release_name('d0') is None


def test_releases__all_of_the_reference() -> None:
    assert len(RELEASES) == 9 + 5 + 6 + 6
    assert RELEASES['d0'] == 'coco2/efficientdet-d0.tar.gz'
    assert RELEASES['d6-640'] == 'coco640/efficientdet-d6-640.tar.gz'


def test_convert__a_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {name: torch.zeros(shape) for name, shape in variables('d0').items()}
    write_bundle(tmp_path / 'run' / 'model', values)
    with tarfile.open(tmp_path / 'x.tar.gz', 'w:gz', compresslevel=1) as archive:
        archive.add(tmp_path / 'run', 'efficientdet-d0')
    server.files[RELEASES['d0-advprop']] = (tmp_path / 'x.tar.gz').read_bytes()
    monkeypatch.setattr(api, 'BASE_URL', server.url)
    result = convert('d0-advprop', cache=tmp_path / 'cache')
    assert result.meta['source'] == 'd0-advprop'
    assert result.meta['model'] == 'd0'
    assert result.report.source == 'advprop-efficientdet-d0.tar.gz'
    address = server.url + RELEASES['d0-advprop']
    assert convert(address, cache=tmp_path / 'cache').meta['sha256'] == result.meta['sha256']
    assert len(server.requests) == 1
    assert len(result.meta['sha256']) == 64
