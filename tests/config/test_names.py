"""Names of our configs."""

from pathlib import Path

import pytest

from effdet_plugin.config import load
from effdet_plugin.config.names import config_path, is_config, named_configs
from effdet_plugin.errors import ConfigError
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
