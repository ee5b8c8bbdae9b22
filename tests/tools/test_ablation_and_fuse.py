"""``tools/ablation.py`` and ``tools/fuse.py`` on the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import Tools

from support import REPOSITORY

TOOLS = REPOSITORY / 'tools'


@pytest.mark.parametrize('name', ['ablation', 'fuse'])
def test_help__needs_no_torch(name: str) -> None:
    assert os.access(TOOLS / f'{name}.py', os.X_OK)
    command = [sys.executable, '-S', str(TOOLS / f'{name}.py'), '--help']  # no installed packages
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_ablation__training_needs_data(tools: Tools) -> None:
    done = tools.run('ablation.py', '--train')
    assert done.code == 2
    assert '--data' in done.err


def test_fuse__writes_and_evaluates(tools: Tools, tmp_path: Path) -> None:
    box = dict(image_id=1, category_id=1, bbox=[5, 5, 20, 20])
    truth = dict(
        images=[dict(id=1, file_name='1.jpg', width=64, height=64)],
        annotations=[dict(**box, id=1, area=400, iscrowd=0)],
        categories=[dict(id=1, name='a')],
    )
    for name, content in (('a', [box | dict(score=0.9)]), ('b', []), ('truth', truth)):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    files = [tmp_path / f'{name}.json' for name in ('a', 'b')]
    out = tmp_path / 'fused.json'
    done = tools.run('fuse.py', *files, '--out', out, '--ann-file', tmp_path / 'truth.json')
    assert done.code == 0, done
    assert json.loads(out.read_text()) == [box | dict(score=0.45)]
    assert done.out.splitlines()[0] == f'1 detections: {out}'
    last = done.out.splitlines()[-1]
    assert 'mAP 1.000' in last


def test_fuse__a_mistake_is_one_line(tools: Tools, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ('none.json', 'neither.json')]
    done = tools.run('fuse.py', *files, '--out', tmp_path / 'out.json')
    assert done.code == 2
    assert done.err.startswith('error: ')
    assert done.err.count('\n') == 1


def test_fuse__a_ground_truth_of_other_images_is_one_line_and_no_file(
    tools: Tools, tmp_path: Path
) -> None:
    row = dict(image_id=1, category_id=1, bbox=[5, 5, 20, 20], score=0.9)
    truth = dict(images=[dict(id=7)], annotations=[], categories=[dict(id=1, name='a')])
    for name, content in (('a', [row]), ('b', [row]), ('truth', truth)):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    files = [tmp_path / f'{name}.json' for name in ('a', 'b')]
    out = tmp_path / 'fused.json'
    done = tools.run('fuse.py', *files, '--out', out, '--ann-file', tmp_path / 'truth.json')
    assert done.code == 2
    assert not out.exists()
    assert done.err.startswith('error: ')
    assert done.err.count('\n') == 1
