"""A tiny project and trainings of it; the helpers beside these tests become importable."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from command_lines import Tools
from tiny_project import Project, write_project


@pytest.fixture(scope='session')
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Config, images and annotations of a training of 16 steps, which takes a second."""
    return write_project(tmp_path_factory.mktemp('project'))


@pytest.fixture(scope='session')
def whole_run(tools: Tools, project: Project) -> Path:
    """The work dir of a training that nothing has interrupted."""
    work_dir = project.folder / 'whole'
    tools.train(project.config, work_dir, umask=0o027).must_succeed()
    return work_dir


@pytest.fixture(scope='session')
def killed_run(tools: Tools, project: Project) -> Path:
    """The work dir of a training that was killed in the middle of its last epoch; copy it."""
    work_dir = project.folder / 'killed'
    result = tools.train(project.config, work_dir, fault='SIGKILL@15')
    assert result.code == -9, result
    return work_dir


@pytest.fixture
def killed_copy(killed_run: Path, tmp_path: Path) -> Path:
    """A copy of the killed training, whose ``last_checkpoint`` names the copy's own file."""
    copy = tmp_path / 'work'
    shutil.copytree(killed_run, copy)
    (copy / 'last_checkpoint').write_text(str(copy / 'epoch_3.pth'))
    return copy
