"""The command line, in this process."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from reference_variables import variables

import support
from effdet_plugin.convert.networks import config_name, config_path

Tool = Callable[..., int]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Runs tools/convert.py with arguments and returns its exit code."""
    folder = support.REPOSITORY / 'tools'
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location('tool_convert', folder / 'convert.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*args: object) -> int:
        monkeypatch.setattr(sys, 'argv', ['convert.py', *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            module.run(module.main)
        return int(caught.value.code or 0)

    return run


@pytest.fixture(scope='module')
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('tool') / 'lite0.npz'
    arrays = {name: np.zeros(shape, np.float32) for name, shape in variables('lite0').items()}
    np.savez(path, **arrays)
    return path


def test_tool__converts_and_reports(
    tool: Tool, lite0: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / 'new' / 'lite0.pth', tmp_path / 'report.json'
    assert tool(lite0, out, '--model', 'lite0', '--classes', 90, '--report', report) == 0
    content = torch.load(out, weights_only=True)
    printed = capsys.readouterr().out
    assert '3,243,470 trainable' in printed
    assert str(out) in printed
    written = json.loads(report.read_text())
    assert written['missing'] == []
    assert set(written['mapped']) | set(written['filled']) == set(content['state_dict'])
    config = Config.fromstring(content['meta']['cfg'], '.py')
    assert config.model.bbox_head.num_classes == config.num_classes == 90
    assert config.model.backbone.model_name == 'tf_efficientnet_lite0'


def test_tool__to_effdet_and_back(tool: Tool, lite0: Path, tmp_path: Path) -> None:
    assert tool(lite0, tmp_path / 'effdet.pth', '--to', 'effdet') == 0
    assert 'class_net.predict.conv_pw.bias' in torch.load(
        tmp_path / 'effdet.pth', weights_only=True
    )
    assert tool(tmp_path / 'effdet.pth', tmp_path / 'back.pth') == 0
    content = torch.load(tmp_path / 'back.pth', weights_only=True)
    assert content['meta']['anchor_aspects'] == 'pairs_1.4_0.7'
    config = Config.fromstring(content['meta']['cfg'], '.py')
    assert config.model.bbox_head.anchor_generator.aspect_ratios[1] == [1.4, 0.7]


def test_tool__mistakes_are_one_line(
    tool: Tool, lite0: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in ([lite0, tmp_path / 'x.pth', '--model', 'd0'], ['d9', tmp_path / 'x.pth']):
        assert tool(*args) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert error.count('\n') == 1
    assert not (tmp_path / 'x.pth').exists()


def test_tool__help_needs_nothing_heavy() -> None:
    command = [sys.executable, '-X', 'importtime', 'tools/convert.py', '--help']
    done = subprocess.run(command, cwd=support.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0
    assert 'advprop' in done.stdout
    assert ' torch' not in done.stderr


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        ('d3', 'd3_coco'),
        ('d3-640', 'd3_640_coco'),
        ('d3-advprop', 'd3_advprop_coco'),
        ('d3-mine.npz', 'd3_coco'),
    ],
)
def test_config_name(source: str, expected: str) -> None:
    assert config_name('d3', source) == expected
    assert config_path(expected).is_file()
