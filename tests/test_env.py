"""The report for bugs."""

import subprocess

import pytest
import torch

import effdet_plugin
from effdet_plugin import compat, env


def test_report__names_versions_stack_and_stand_ins() -> None:
    lines = env.report().splitlines()
    found = {line.split()[0]: line for line in lines}
    assert effdet_plugin.__version__ in found['effdet_plugin']
    assert torch.__version__ in found['torch']
    assert 'mmdet' in found['stack']
    assert ('stand-in' in found['mmcv']) is compat.mmcv_ext_is_stand_in()
    assert ('stand-in' in found['torchvision']) is compat.torchvision_is_repaired()
    assert all(line == line.strip() for line in lines)


@pytest.mark.parametrize(
    ('distribution', 'family'), [('mmdet', 'OpenMMLab:'), ('onedl-mmdetection', 'onedl:')]
)
def test_stack__family(monkeypatch: pytest.MonkeyPatch, distribution: str, family: str) -> None:
    monkeypatch.setattr(env, 'version', lambda name: '3.5.1')
    assert env._stack({'mmdet': [distribution]}) == f'{family} {distribution} 3.5.1'


def test_stack__incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, 'missing_openmmlab', lambda: ['mmcv', 'mmdet'])
    assert env._stack({}).startswith('incomplete: mmcv, mmdet not installed; pip install')


def test_commit__not_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str], **kwargs: object) -> None:
        raise subprocess.CalledProcessError(128, command)

    monkeypatch.setattr(env.subprocess, 'run', refuse)
    assert env._commit() == ''


@pytest.mark.gpu
def test_gpus__names_the_device() -> None:
    assert torch.cuda.get_device_name(0) in env._gpus()
