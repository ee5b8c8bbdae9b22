"""``[CONFIG] MODEL`` of all tools: what a command line means, and what is refused in a line."""

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import REPOSITORY


def _bootstrap() -> ModuleType:
    path = REPOSITORY / 'tools' / '_bootstrap.py'
    spec = importlib.util.spec_from_file_location('_bootstrap_of_tests', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BOOTSTRAP = _bootstrap()


def parsed(line: str, kind: str, **options: Any) -> dict[str, Any]:
    """What a command line means for a tool like infer, test or benchmark."""
    parser = argparse.ArgumentParser()
    if kind == 'benchmark':
        parser.add_argument('mode')
    BOOTSTRAP.add_model(parser, several=kind == 'benchmark')
    if kind == 'infer':
        parser.add_argument('input', nargs='+')
    parser.add_argument('--out')
    parser.add_argument('--cfg-options', nargs='+', action='extend')
    found = vars(BOOTSTRAP.parse_model_args(parser, line.split(), **options))
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ('kind', 'line', 'config', 'model', 'rest'),
    [
        ('infer', 'best.pth a.jpg', None, 'best.pth', ['a.jpg']),
        ('infer', 'd0_coco best.pth a.jpg', 'd0_coco', 'best.pth', ['a.jpg']),
        ('infer', 'own.py none a.jpg', 'own.py', 'none', ['a.jpg']),
        # An expanded pattern.
        ('infer', 'best.pth a.jpg b.jpg c.jpg', None, 'best.pth', ['a.jpg', 'b.jpg', 'c.jpg']),
        ('infer', 'd0_coco best.pth a.jpg b.jpg', 'd0_coco', 'best.pth', ['a.jpg', 'b.jpg']),
        ('test', 'best.pth', None, 'best.pth', None),
        ('test', 'd0_coco m.onnx', 'd0_coco', 'm.onnx', None),
        ('benchmark', 'network m.onnx', None, ['m.onnx'], None),
        ('benchmark', 'network best.pth m.onnx', None, ['best.pth', 'm.onnx'], None),
        ('benchmark', 'network d0_coco none m.onnx', 'd0_coco', ['none', 'm.onnx'], None),
    ],
)
def test_parse_model_args(
    kind: str, line: str, config: str | None, model: str | list[str], rest: list[str] | None
) -> None:
    found = parsed(line, kind)
    assert (found.get('config'), found['model'], found.get('input')) == (config, model, rest)
    *first, last = line.split()
    # Options between the words change nothing.
    found = parsed(' '.join([*first, '--out x', last, '--cfg-options a=1 b=2']), kind)
    assert (found.get('config'), found['model'], found.get('input')) == (config, model, rest)
    assert (found['out'], found['cfg_options']) == ('x', ['a=1', 'b=2'])


@pytest.mark.parametrize(
    ('kind', 'line', 'words'),
    [
        ('test', 'd0_coco', 'd0_coco is a config: give MODEL after it'),
        ('test', 'own.py', 'own.py is a config: give MODEL after it'),
        ('infer', 'd0_coco best.pth', 'd0_coco is a config: give MODEL after it'),
        ('benchmark', 'network d0_coco', 'd0_coco is a config: give MODEL after it'),
        ('test', 'best.pth own.py', 'CONFIG comes before MODEL: own.py best.pth'),
        ('infer', 'best.pth own.py a.jpg', 'CONFIG comes before MODEL: own.py best.pth'),
        ('benchmark', 'network m.onnx d0_coco', 'CONFIG comes before MODEL: d0_coco m.onnx'),
        ('test', 'own.py other.py', 'MODEL other.py: is a config; give a checkpoint'),
        ('test', 'd0_cco best.pth', 'd0_cco: neither a config file (.py) nor the name of one'),
        ('test', 'd0_cco best.pth', "did you mean 'd0_coco'?"),
        ('infer', 'lite0 best.pth a.jpg', "did you mean 'lite0_coco'?"),
        ('test', 'none', 'MODEL none (random weights) needs a CONFIG'),
        ('infer', 'none a.jpg', 'MODEL none (random weights) needs a CONFIG'),
    ],
)
def test_parse_model_args__mistakes_are_one_line(
    kind: str, line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(line, kind)
    assert ended.value.code == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith('error: ')
    assert words in message


def test_parse_model_args__where_a_config_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed('d0_coco best.pth', 'test', needs_config=True)['model'] == 'best.pth'
    with pytest.raises(SystemExit):
        parsed('best.pth', 'test', needs_config=True)
    assert 'give a CONFIG before MODEL best.pth' in capsys.readouterr().err


def test_parse_model_args__too_few_words(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ('infer', 'test', 'benchmark'):
        with pytest.raises(SystemExit) as ended:
            parsed('', kind)
        assert ended.value.code == 2
        assert 'MODEL' in capsys.readouterr().err


def test_parse_model_args__a_model_that_is_there_needs_no_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('d0_cocoo').touch()
    assert parsed('d0_cocoo', 'test')['model'] == 'd0_cocoo'
