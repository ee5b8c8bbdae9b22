"""The page on export is executed, each block in turn; the tools that it names have its options."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from export_networks import HOW, images, missing, network

from effdet_plugin.cli.main import load, make
from effdet_plugin.config.embedded import embed
from effdet_plugin.files import write_image
from support import REPOSITORY

PAGE = REPOSITORY / 'docs' / 'export.md'
BLOCK = re.compile(r'^```(python|bash)\n(.*?)^```', re.MULTILINE | re.DOTALL)


@pytest.mark.export
@pytest.mark.slow
@pytest.mark.skipif(bool(missing('onnx', 'onnxscript', 'onnxruntime')), reason=HOW)
@pytest.mark.timeout(900)
def test_export__the_page_runs(tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg', images(1)[0])
    trained = network('lite0', (128, 128))
    meta = {'dataset_meta': {'classes': trained.classes}, 'config': embed(trained.config)}
    torch.save({'state_dict': trained.model.state_dict(), 'meta': meta}, tmp_path / 'best.pth')
    for name in ('tools', 'configs', 'effdet_plugin', 'requirements'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    blocks = BLOCK.findall(PAGE.read_text())
    assert [kind for kind, _ in blocks] == ['bash', 'bash', 'bash', 'bash', 'python', 'python']
    assert 'pip install' in blocks[0][1]  # what the test needs already; nothing is downloaded
    said = [run(kind, text, tmp_path) for kind, text in blocks[1:]]
    assert '100.0% found again' in said[0]
    assert 'model.onnx:' in said[0]
    assert '1 image' in said[1]
    assert 'network/b1/model.onnx' in said[2]
    assert 'tensor(' in said[3]
    assert '(2, 100, 4) (2, 100) (2, 100)' in said[4]


def run(kind: str, text: str, folder: Path) -> str:
    text = text.replace('IMAGE', 'a.jpg').replace('MODEL', 'best.pth')
    words = ['-c', text] if kind == 'python' else shlex.split(text.replace('\\\n', ' '))[1:]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={'PYTHONPATH': str(folder), 'PATH': '/usr/bin:/bin', 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize('tool', ['export', 'infer', 'benchmark', 'convert'])
def test_export__options_of_the_page_are_the_tools(tool: str) -> None:
    page = PAGE.read_text()
    parser = make(load({'infer': 'predict'}.get(tool, tool)))
    lines = [line for line in page.splitlines() if f'tools/{tool}.py' in line]
    assert lines
    if tool == 'export':
        options = page.split('## Use it')[0]  # below, a table has the reference's
        lines += [line for line in options.splitlines() if line.startswith('| `--')]
    for line in lines:
        command = line[line.find(f'tools/{tool}.py') :] if f'tools/{tool}.py' in line else line
        command = command.split('`')[0] if command.startswith('tools') else command.split('|')[1]
        for option in re.findall(r'--[a-z][a-z-]+', command):
            assert option in parser._option_string_actions, (tool, option)
