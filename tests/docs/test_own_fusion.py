"""The page on own fusions is executed, from the first file to the last command."""

import re
import shlex
from pathlib import Path

import pytest
from command_lines import Tools

from support import REPOSITORY

PAGE = REPOSITORY / 'docs' / 'own_fusion.md'
BLOCK = re.compile(r'^```(python|bash)\n(.*?)^```', re.MULTILINE | re.DOTALL)
SMALL = (
    '--image-size 64 --cfg-options train_dataloader.batch_size=2 train_dataloader.num_workers=0 '
    'train_dataloader.persistent_workers=False val_dataloader.num_workers=0 '
    'val_dataloader.persistent_workers=False test_dataloader.num_workers=0 '
    'test_dataloader.persistent_workers=False model.neck.num_cells=1 '
    'model.backbone.pretrained=False'
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what the commands of the page need of a clone."""
    for name in ('tools', 'configs', 'effdet_plugin'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


def run(tools: Tools, command: str, folder: Path) -> str:
    """Run a command of the page in a folder where Python finds its modules; return what it says."""
    words = shlex.split(command.replace('\\\n', ' '))
    assert words.pop(0) == '.venv/bin/python'
    script, *arguments = words
    result = tools.start(folder / script, *arguments, cwd=folder, PYTHONPATH=str(folder)).wait(280)
    assert result.code == 0, result
    return result.out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_own_fusion__the_page_runs(tools: Tools, clone: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    commands = [text.strip() for kind, text in blocks if kind == 'bash']
    for text in (text for kind, text in blocks if kind == 'python'):
        (clone / text.splitlines()[0].removeprefix('# ')).write_text(text)
    assert sorted(path.name for path in clone.glob('*.py')) == [
        'lite0_max.py',
        'lite0_two_nodes_a_level.py',
        'max_fusion.py',
    ]

    table = run(
        tools, f'{commands[0]} lite0_two_nodes_a_level.py --rounds 1 --image-size 64', clone
    )
    for name in ('lite0_max', 'lite0_bifpn', 'lite0_two_nodes_a_level'):
        assert f'\n{name} ' in table

    data = REPOSITORY / 'tests' / 'data' / 'bccd_pair'
    train = commands[1].replace('DIR', str(data), 1).replace(' configs/ablation/lite0_bifpn.py', '')
    out = run(tools, f'{train} --seeds 0 --epochs 1 {SMALL}', clone)
    assert re.search(r'^lite0_max +\S+M +\S+G +1 +0\.', out, re.MULTILINE)
    assert (clone / 'work_dirs' / 'max' / 'ablation.png').is_file()
