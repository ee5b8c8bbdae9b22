"""A config file becomes a checked config, or one line that says why not."""

from pathlib import Path

import pytest

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError

TEXT = """
image_size = (64, 64)
model = dict(type='RetinaNet', neck=dict(type='FPN', in_channels=[1], out_channels=4, num_outs=5))
val_dataloader = dict(batch_size=1, dataset=dict(
    type='CocoDataset', ann_file='x.json', pipeline=[dict(type='LoadImageFromFile')]))
sizes = dict(image_size=image_size)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'retinanet.py'
    path.write_text(TEXT, encoding='utf-8')
    return path


def test_load__size_and_options(path: Path) -> None:
    cfg = load(path, image_size='96x32', options=['model.neck.num_outs=4'])
    assert cfg.image_size == cfg.sizes.image_size == (32, 96)
    assert cfg.model.neck.num_outs == 4


def test_load__option_makes_a_wrong_node(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.neck\.type.*did you mean 'FPN'"):
        load(path, options={'model.neck.type': 'FPNN'})


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('model = dict(', 'SyntaxError'),
        ('model = dict(type=undefined)', 'NameError'),
        ("custom_imports = dict(imports=['no_such_package_here'])", 'no_such_package_here'),
        ("_base_ = ['missing.py']", 'missing.py'),
    ],
)
def test_load__broken_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / 'broken.py'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(ConfigError, match=words) as error:
        load(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('own_fusoin', "Failed to import own_fusoin: No module named 'own_fusoin'; is the name"),
        ('own_fusion', "Failed to import own_fusion: No module named 'no_such_thing'; is the name"),
        ('own_word', "Failed to import own_word: cannot import name 'x' from 'pathlib'"),
    ],
)
def test_load__custom_import_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    (tmp_path / 'own_fusion.py').write_text('import no_such_thing', encoding='utf-8')
    (tmp_path / 'own_word.py').write_text('from pathlib import x', encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / 'own.py'
    path.write_text(f"custom_imports = dict(imports=['{name}'], allow_failed_imports=False)")
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value).startswith(f'config {path}: {reason}')
    assert '\n' not in str(error.value)


def test_load__missing_file_names_the_nearest(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'retinanet\.py'"):
        load(path.with_name('retinant.py'))
