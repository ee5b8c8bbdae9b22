"""Making mmdet importable, and refused installations; other installations are faked."""

import importlib
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from effdet_plugin import compat
from effdet_plugin.errors import InstallError
from support import REPOSITORY

UPSTREAM = {'mmengine': ['mmengine'], 'mmcv': ['mmcv-lite'], 'mmdet': ['mmdet']}
FORK = {'mmengine': ['onedl-mmengine'], 'mmcv': ['onedl-mmcv'], 'mmdet': ['onedl-mmdetection']}

# Makes the three invisible to a fresh interpreter.
HIDE_OPENMMLAB = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(lambda cls, name, path=None, target=None: None
    if name.split('.')[0] in ('mmengine', 'mmcv', 'mmdet') else find(name, path, target))
"""


def run_python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(map(str, (*paths, REPOSITORY)))
    environment = {**os.environ, 'PYTHONPATH': search, 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-c', code]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def fake_distribution(folder: Path, name: str, version: str, package: str) -> None:
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    (info / 'RECORD').write_text(f'{package}/__init__.py,,\n')
    # From Python 3.12 on, importlib.metadata leaves out files that do not exist.
    (folder / package).mkdir(exist_ok=True)
    (folder / package / '__init__.py').touch()


@pytest.mark.parametrize('owners', [UPSTREAM, FORK, {}, {'mmdet': ['mmdet', 'mmdet']}])
def test_check_distributions__one_stack_passes(owners: dict[str, list[str]]) -> None:
    compat.check_distributions(owners)


@pytest.mark.parametrize(
    ('package', 'names'),
    [
        ('mmdet', ['onedl-mmdetection', 'mmdet']),
        ('mmcv', ['mmcv', 'mmcv-lite']),
        ('mmengine', ['mmengine', 'onedl-mmengine']),
    ],
)
def test_check_distributions__two_over_each_other(package: str, names: list[str]) -> None:
    with pytest.raises(InstallError) as caught:
        compat.check_distributions({**UPSTREAM, package: names})
    first, second = sorted(names)
    assert f'pip uninstall -y {first} {second}' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_check_distributions__two_opencv_wheels_are_a_warning() -> None:
    wheels = ['opencv-python', 'opencv-python-headless']
    with pytest.warns(UserWarning, match='opencv-python and opencv-python-headless.*pip uninstall'):
        compat.check_distributions({**UPSTREAM, 'cv2': wheels})


def test_import__is_refused_where_pip_put_two_stacks(tmp_path: Path) -> None:
    fake_distribution(tmp_path, 'onedl-mmdetection', '3.5.1', 'mmdet')
    fake_distribution(tmp_path, 'mmdet', '3.3.0', 'mmdet')
    done = run_python('import effdet_plugin', tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('effdet_plugin.errors.InstallError: ')
    assert 'pip uninstall -y mmdet onedl-mmdetection' in last


@pytest.mark.parametrize(
    ('versions', 'owners', 'message'),
    [
        ({'torch': '2.3.1+cu121'}, UPSTREAM, r"torch 2\.3\.1.*pip install -U 'torch>=2\.4'"),
        ({'timm': '0.9.16'}, UPSTREAM, r'timm 0\.9\.16.*1\.0\.9'),
        ({'mmcv': '2.2.0'}, UPSTREAM, r'mmcv-lite 2\.2\.0.*pip install mmcv-lite==2\.1\.0'),
        ({'mmcv': '1.7.2'}, UPSTREAM, r'mmcv-lite 1\.7\.2.*pip install mmcv-lite==2\.1\.0'),
    ],
)
def test_check_versions__misfits(
    versions: dict[str, str], owners: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(InstallError, match=message):
        compat.check_versions(versions, owners)


@pytest.mark.parametrize(
    ('versions', 'owners'),
    [
        ({'torch': '2.13.0+cpu', 'timm': '1.0.31', 'mmcv': '2.1.0'}, UPSTREAM),
        ({'torch': '2.4.0', 'mmcv': '2.0.0rc4'}, UPSTREAM),
        ({'torch': '2.10.0a0+git1', 'mmcv': '2.3.6'}, FORK),
        ({}, {}),
    ],
)
def test_check_versions__fits(versions: dict[str, str], owners: dict[str, list[str]]) -> None:
    compat.check_versions(versions, owners)


def test_check_versions__this_installation() -> None:
    owners = packages_distributions()
    found = compat._installed_versions(owners)
    assert {'torch', 'timm', 'mmengine', 'mmcv'} <= set(found)
    compat.check_versions(found, owners)


def forget(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Have a package imported again in this test; its modules are restored afterwards."""
    for name in [name for name in sys.modules if name.split('.')[0] == package]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize('is_compiled', [True, False])
def test_mmcv_ext__a_real_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compiled: bool
) -> None:
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    if is_compiled:
        (package / '_ext.py').write_text('def nms(): return "compiled"\n')
    forget(monkeypatch, 'mmcv')
    monkeypatch.syspath_prepend(tmp_path)
    assert compat.mmcv_ext_is_stand_in() is not is_compiled
    extension = importlib.import_module('mmcv._ext')
    assert hasattr(extension, '__effdet_stub__') is not is_compiled
    assert not is_compiled or extension.nms() == 'compiled'


def test_mmcv_ext__finder_is_last_and_single() -> None:
    finders = [type(finder).__name__ for finder in sys.meta_path]
    assert finders.count('MmcvExtFinder') == 1
    assert finders.index('MmcvExtFinder') > sys.meta_path.index(importlib.machinery.PathFinder)


UNITS = ('models', 'inference', 'own_data')


def test_without_openmmlab__ops_work_and_the_rest_says_what_to_install() -> None:
    code = f"""
import sys, traceback
import effdet_plugin.ops
print("ops")
for unit in {UNITS}:
    try:
        __import__('effdet_plugin.' + unit)
    except Exception:
        traceback.print_exc()
        print('end of', unit, file=sys.stderr)
import effdet_plugin.models
"""
    done = run_python(HIDE_OPENMMLAB + code)
    assert done.returncode == 1
    assert done.stdout == 'ops\n'
    lines = done.stderr.strip().splitlines()
    for unit, line in [
        *((unit, lines[lines.index(f'end of {unit}') - 1]) for unit in UNITS),
        ('models', lines[-1]),
    ]:
        assert line.startswith(
            f'effdet_plugin.errors.InstallError: effdet_plugin.{unit} needs mmengine, mmcv, mmdet'
        )


def test_format_configs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def format_code(text: str, **settings: Any) -> tuple[str, bool]:
        asked.append((text, settings))
        return text.replace('=', ' = '), True

    monkeypatch.setattr('mmengine.config.config.FormatCode', format_code)
    compat.format_configs_once()
    cfg = Config({'a': 1})
    assert [cfg.pretty_text, cfg.pretty_text] == ['a = 1', 'a = 1']
    assert Config({'a': 2}).pretty_text == 'a = 2'
    assert [text for text, _ in asked] == ['a=1', 'a=2']
    assert asked[0][1]['style_config']['based_on_style'] == 'pep8'
    cfg.a = 3
    assert cfg.pretty_text == 'a = 3'


class Torchvision:
    """A fake torchvision whose import raises what the test wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source = folder / 'torchvision' / '__init__.py'
        self.source.parent.mkdir()
        self.repairs = 0
        forget(monkeypatch, 'torchvision')
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(compat, '_torchvision_library', None)
        monkeypatch.setattr(compat, '_define_torchvision_schemas', self.repair)

    def says(self, message: str) -> None:
        self.source.write_text(f'raise RuntimeError({message!r})\n' if message else 'OK = True\n')

    def repair(self) -> object:
        self.repairs += 1
        self.source.write_text(
            'IS_REPAIRED = True  # of another length, so that it is not taken from the cache\n'
        )
        return object()


@pytest.fixture
def torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Torchvision:
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    return Torchvision(tmp_path, monkeypatch)


def test_repair_torchvision__without_its_compiled_half(torchvision: Torchvision) -> None:
    torchvision.says('operator torchvision::nms does not exist')
    compat.repair_torchvision()
    assert torchvision.repairs == 1
    assert compat.torchvision_is_repaired()
    assert importlib.import_module('torchvision').IS_REPAIRED


def test_repair_torchvision__healthy_is_untouched(torchvision: Torchvision) -> None:
    torchvision.says('')
    compat.repair_torchvision()
    assert torchvision.repairs == 0
    assert not compat.torchvision_is_repaired()


def test_repair_torchvision__other_faults_show(torchvision: Torchvision) -> None:
    torchvision.says('detected a CUDA of another version')
    with pytest.raises(RuntimeError, match='another version'):
        compat.repair_torchvision()
    assert torchvision.repairs == 0


def test_repair_torchvision__only_what_lacks_its_compiled_half() -> None:
    extension = importlib.import_module('torchvision.extension')
    assert compat.torchvision_is_repaired() is not extension._has_ops()
