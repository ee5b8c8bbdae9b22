"""GridMask: the reference's geometry, in numbers; boxes, type and shape stay."""

from typing import Any

import numpy as np
import pytest

from effdet_plugin.datasets import GridMask
from effdet_plugin.errors import ConfigError


def masked(mask: GridMask, height: int, width: int, dtype: Any = np.uint8) -> np.ndarray:
    image = np.full((height, width, 3), 7, dtype)
    found: np.ndarray = mask({'img': image})['img']
    assert (image == 7).all()  # a cached image is not written to
    return found


@pytest.mark.parametrize(('height', 'width'), [(480, 640), (1028, 512), (4, 4), (1, 9), (33, 470)])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_grid_mask__shape_and_type(height: int, width: int, dtype: Any) -> None:
    found = masked(GridMask(prob=1.0), height, width, dtype)
    assert found.shape == (height, width, 3)
    assert found.dtype == dtype
    assert {*np.unique(found)} <= {0, 7}
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize('ratio', [0.3, 0.6, 0.8])
def test_grid_mask__squares_of_the_rest_of_a_period(ratio: float) -> None:
    """Not turned, whole squares have the side ``period - length``, one each period."""
    mask = GridMask(prob=1.0, ratio=ratio, rotate=0.0, gridmask_size_ratio=4.0)
    for seed in range(5):
        np.random.seed(seed)
        kept = mask.kept(400, 700)  # periods of 200 to 210 pixels
        kept_rows, kept_columns = kept.all(1), kept.all(0)
        assert (kept == (kept_rows[:, None] | kept_columns)).all()
        edges = np.flatnonzero(np.diff(kept_columns.astype(int)))
        runs = np.diff(edges)
        period = runs[0] + runs[1]
        assert 200 <= period <= 210
        gap = min(runs[:2]) if ratio > 0.5 else max(runs[:2])
        assert gap == period - int(period * ratio + 0.5)


def test_grid_mask__share_of_the_pixels_and_of_the_images() -> None:
    """Beside the origin, where a period may be missing, 0.4 * 0.4 of the pixels are black."""
    black = [1 - GridMask(prob=1.0).kept(480, 640).mean() for _ in range(100)]
    assert 0.12 < np.mean(black) < 0.24
    number = sum(int((masked(GridMask(), 60, 80) == 0).any()) for _ in range(300))
    assert 0.6 < number / 300 < 0.78


def test_grid_mask__ratio_1_draws_the_length() -> None:
    mask = GridMask(prob=1.0, ratio=1, rotate=0.0)
    shares = [mask.kept(480, 640).mean() for _ in range(30)]
    assert max(shares) - min(shares) > 0.3


def test_grid_mask__turned_counterclockwise_by_rotate_times_a_normal_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As TensorFlow Addons' positive angles: what is lower moves to the right."""
    drawn: list[tuple[float, ...]] = []
    monkeypatch.setattr(np.random, 'normal', lambda *given: drawn.append(given) or 0.5)
    mask, angles = GridMask(prob=1.0, rotate=8.0), []
    for seed in range(100):
        np.random.seed(seed)
        kept = mask.kept(900, 900).astype(int)
        edges = [np.flatnonzero(np.diff(kept[row]) > 0) for row in (400, 460)]
        # Neither row is in a stripe that is kept, and both cross the same edges.
        if len(edges[0]) == len(edges[1]) > 0 and (np.ptp(edges[1] - edges[0]) <= 1):
            angles.append(float(np.degrees(np.arctan2((edges[1] - edges[0])[0], 60))))
    assert {*drawn} == {(-1, 1)}
    assert len(angles) > 10
    assert np.median(angles) == pytest.approx(4.0, abs=1.0)


def test_grid_mask__reproducible_and_off() -> None:
    runs = []
    for _ in range(2):
        np.random.seed(3)
        runs.append(masked(GridMask(prob=0.5), 90, 120))
    assert (runs[0] == runs[1]).all()
    assert (masked(GridMask(prob=0.0), 90, 120) == 7).all()


@pytest.mark.parametrize('bad', [{'prob': 2}, {'ratio': -0.1}, {'gridmask_size_ratio': -1}])
def test_grid_mask__refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f'GridMask: {next(iter(bad))}'):
        GridMask(**bad)
