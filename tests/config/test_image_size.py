"""The input size: read from text, set everywhere."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from effdet_plugin.config import find_sizes, parse_size, set_image_size
from effdet_plugin.errors import ConfigError


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (640, (640, 640)),
        ('640', (640, 640)),
        ('1920x1280', (1280, 1920)),
        (' 768X512 ', (512, 768)),
        ((512, 768), (512, 768)),
        ([512, 768], (512, 768)),
    ],
)
def test_parse_size(value: Any, expected: tuple[int, int]) -> None:
    assert parse_size(value) == expected


@pytest.mark.parametrize('value', ['', 'x', '0', '640x', 'x640', '64x0', '-5', '6.5', 0, (1, 2, 3)])
def test_parse_size__refuses(value: Any) -> None:
    with pytest.raises(ConfigError, match='WIDTHxHEIGHT') as error:
        parse_size(value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('value', ['1000000', '100000x1001', (10**9, 1)])
def test_parse_size__more_than_fits_in_memory(value: Any) -> None:
    with pytest.raises(ConfigError, match='more than 100 million pixels'):
        parse_size(value)


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_parse_size__text_is_width_first(height: int, width: int) -> None:
    assert parse_size(f'{width}x{height}') == (height, width)


def _wrapped() -> Config:
    """A config whose dataset is wrapped twice, with sizes at every depth."""
    inner = dict(
        type='EfficientDetDataset',
        image_size=(512, 512),
        dataset=dict(pipeline=[dict(type='LetterBox', image_size=(512, 512)), dict(type='Pack')]),
    )
    return Config(
        dict(
            image_size=(512, 512),
            train_dataloader=dict(
                dataset=dict(type='RepeatDataset', times=2, dataset=dict(datasets=[inner, inner]))
            ),
            model=dict(neck=dict(num_outs=5)),
        )
    )


def test_set_image_size__everywhere() -> None:
    cfg = _wrapped()
    set_image_size(cfg, '192x128')
    sizes = dict(find_sizes(cfg))
    assert len(sizes) == 5
    assert set(sizes.values()) == {(128, 192)}
    assert cfg.train_dataloader.dataset.dataset.datasets[1].image_size == (128, 192)


def test_set_image_size__config_without_a_size() -> None:
    with pytest.raises(ConfigError, match='no image_size'):
        set_image_size(Config(dict(model=dict(type='RetinaNet'))), 640)


def test_set_image_size__survives_dump_and_reload(tmp_path: Any) -> None:
    cfg = _wrapped()
    set_image_size(cfg, 640)
    cfg.dump(tmp_path / 'dumped.py')
    assert dict(Config.fromfile(tmp_path / 'dumped.py')) == dict(cfg)
