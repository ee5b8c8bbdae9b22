"""A ``_base_`` in a package that cannot be found is one line that says how to write it."""

from pathlib import Path

import pytest

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError


@pytest.mark.filterwarnings('ignore:pkg_resources')
@pytest.mark.parametrize(
    ('base', 'words'),
    [
        ('onedl::retinanet/retinanet_r18_fpn_1x_coco.py', r'onedl config; .*mmdet::PATH'),
        ('nope::a.py', 'mmdet::PATH'),
        ('mmdet::', 'mmdet::PATH'),
        ('mmdet::retinanet/nope.py', r'mmdet.*retinanet/nope\.py'),
        ('./nope.py', r'nope\.py'),
    ],
)
def test_base__that_cannot_be_found(base: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = [{base!r}]\n')
    with pytest.raises(ConfigError, match=words) as error:
        load(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)
