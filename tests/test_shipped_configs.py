"""Names of our configs."""

from pathlib import Path

import pytest
from mmengine.config import Config

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError
from effdet_plugin.shipped_configs import config_path, is_config, named_configs, path
from support import REPOSITORY


def test_named_configs__are_the_files_that_can_be_used() -> None:
    files = sorted((REPOSITORY / 'configs').glob('*/*.py'))
    assert sorted(named_configs()) == sorted(path.stem for path in files)  # no name is used twice
    assert named_configs()['d0_coco'] == REPOSITORY / 'configs' / 'efficientdet' / 'd0_coco.py'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('d0_coco', True),
        ('lite0_coco', True),
        ('somewhere/own.py', True),
        (Path('own.py'), True),
        ('coco', False),  # only a base of others
        ('d0_coco.pth', False),
        ('d0', False),
        ('', False),
    ],
)
def test_is_config(text: str, expected: bool) -> None:
    assert is_config(text) is expected


def test_load__by_name_unless_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load('lite0_coco', image_size=64).image_size == (64, 64)
    monkeypatch.chdir(tmp_path)
    Path('lite0_coco').write_text('x = 1')
    assert config_path('lite0_coco') == Path('lite0_coco')
    with pytest.raises(ConfigError, match='config lite0_cocoo: there is no such file'):
        load('lite0_cocoo')


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('d2_coco', 'efficientdet/d2_coco.py'),
        ('d2', 'efficientdet/d2_coco.py'),
        ('lite0', 'efficientdet/lite0_coco.py'),
        ('effdet_plugin::efficientdet/d2_coco.py', 'efficientdet/d2_coco.py'),
        ('effdet_plugin::mix/_base_/coco_1x.py', 'mix/_base_/coco_1x.py'),
    ],
)
def test_path(name: str, file: str) -> None:
    assert path(name) == REPOSITORY / 'configs' / file


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('d2_coc', "did you mean 'd2_coco'"),
        ('effdet_plugin::efficientdet/d2_coc.py', "did you mean 'd2_coco'"),
        ('../setup.py', 'no config of effdet_plugin has this name'),
        ('', 'no config of effdet_plugin has this name'),
    ],
)
def test_path__no_such(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        path(name)


def test_base__by_the_name_of_the_package(tmp_path: Path) -> None:
    """As other projects write it; no dict gets a registry scope of ours."""
    own = tmp_path / 'own.py'
    own.write_text("_base_ = 'effdet_plugin::efficientdet/d2_coco.py'\nnum_classes = 80\n")
    cfg, ours = Config.fromfile(own), Config.fromfile(path('d2'))
    assert cfg.to_dict() == ours.to_dict()
    assert '_scope_' not in cfg.model
    own.write_text("_base_ = 'effdet_plugin::efficientdet/d22_coco.py'\n")
    with pytest.raises(ConfigError, match="did you mean 'd2_coco'"):
        load(own)
