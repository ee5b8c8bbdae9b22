"""The recipe: what the data decide, what a person has set, and that it is a function."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effdet_plugin.config import find_sizes
from effdet_plugin.training import TrainSettings, prepare, recipe
from effdet_plugin.training.recipe import (
    EPOCHS,
    WARM_UP_SHARE,
    Schedule,
    Statistics,
    choose,
    epochs_of,
    input_size,
    lowered,
)
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'
USUAL = Schedule(epochs=50, batch=8, warm_up=2, size=320)

schedules = st.builds(
    Schedule,
    epochs=st.integers(1, 400),
    batch=st.integers(1, 512),
    warm_up=st.floats(0, 10),
    size=st.integers(128, 2048),
    interval=st.integers(1, 10),
    rate=st.floats(1e-5, 1),
)
shares = st.floats(0, 1)
data_sets = st.builds(
    Statistics,
    st.integers(0, 10**6),
    st.integers(0, 10**7),
    shares,
    st.floats(1, 10_000),
    shares,
    st.just(''),
)


def names(*arguments: Any) -> list[str]:
    return [choice.name for choice in choose(*arguments)]


def changes(*arguments: Any) -> dict[str, float]:
    return {key: choice.number for choice in choose(*arguments) for key in choice.keys}


@given(data_sets, schedules)
def test_choose__what_is_changed_is_within_its_bounds(data: Statistics, asked: Schedule) -> None:
    found = changes(data, asked)
    epochs = found.get('train_cfg.max_epochs', asked.epochs)
    if data.images:
        assert EPOCHS[0] <= epochs <= EPOCHS[1]
    warm_up = found.get('param_scheduler.0.warmup_epochs', asked.warm_up)
    assert warm_up <= epochs * WARM_UP_SHARE + 0.01 or not data.images
    assert asked.size <= found.get('image_size', asked.size) <= 1.6 * asked.size
    if 'image_size' in found:
        assert found['image_size'] <= data.image_side
        assert found['image_size'] % 64 == 0
    assert 1 <= found.get('train_cfg.val_interval', 1) <= 8
    rate = found.get('optim_wrapper.optimizer.lr', asked.rate)
    assert (rate < asked.rate) is (asked.batch < 8 and bool(data.images))
    assert (rate > asked.rate) is (asked.batch > 32 and bool(data.images))
    told = choose(data, asked)
    assert len({choice.name for choice in told}) == len(told)
    assert all(choice.value for choice in told)


@given(data_sets, schedules)
def test_choose__what_a_person_has_set_stays(data: Statistics, asked: Schedule) -> None:
    found = changes(data, asked)
    for path in found:
        assert path not in changes(data, asked, [path])
    assert not changes(
        data, asked, ['train_cfg', 'param_scheduler', 'optim_wrapper', 'model', 'image_size']
    )


@given(data_sets, schedules)
def test_choose__of_equal_data_the_same(data: Statistics, asked: Schedule) -> None:
    """A run that is resumed by the same command is the same run."""
    assert choose(data, asked) == choose(data, asked)
    assert changes(data, asked._replace(epochs=7)).get('train_cfg.max_epochs') == (
        changes(data, asked).get('train_cfg.max_epochs')
    )


@given(st.integers(1, 10**5))
def test_epochs__more_images_take_fewer_epochs_and_more_steps(images: int) -> None:
    fewer, more = epochs_of(images), epochs_of(2 * images)
    assert more <= fewer
    assert 2 * images * more >= images * fewer


@given(st.floats(0, 1), st.floats(0, 1), st.integers(128, 2048))
def test_input__smaller_boxes_never_get_a_smaller_input(one: float, two: float, size: int) -> None:
    small, large = (input_size(Statistics(9, 9, side, 4000.0), size) for side in sorted((one, two)))
    assert small >= large >= size


@given(st.integers(1, 10**5), schedules)
def test_choose__more_images_are_never_too_few(images: int, asked: Schedule) -> None:
    own = ['train_cfg.max_epochs']
    is_few = ['few steps' in names(Statistics(n, n), asked, own) for n in (images, 2 * images)]
    assert is_few != [False, True]


def test_choose__by_hand() -> None:
    assert choose(Statistics(0, 0), USUAL) == []
    assert changes(Statistics(140, 900), USUAL) == {
        'train_cfg.max_epochs': 100,
        'train_cfg.val_interval': 4,
    }
    few, *_ = choose(Statistics(20, 40), USUAL, ['train_cfg'])
    assert (few.value, few.keys) == ('100 in all', ())
    assert '--epochs 150' in few.why
    short, _ = choose(Statistics(80, 90), USUAL._replace(epochs=3), ['train_cfg.max_epochs'])
    assert (short.value, short.number) == ('0.6 epochs', 0.6)


def test_choose__small_boxes() -> None:
    """BCCD: 5 % of the boxes are below 21 px in an input of 320, of images of 640x480."""
    cells = Statistics(560, 2804, 21 / 320, 640.0)
    assert changes(cells, USUAL)['image_size'] == 384
    assert 'image_size' not in changes(cells._replace(image_side=320.0), USUAL)
    tiny = choose(cells._replace(small_side=0.01), USUAL)
    assert [one.number for one in tiny if one.keys == ('image_size',)] == [512]
    assert '--tiles' in next(one.why for one in tiny if one.name == 'small boxes')
    (anchors,) = choose(
        Statistics(560, 900, unreached=0.3, anchor_advice='--image-size 640 (5%)'),
        USUAL,
        ['train_cfg'],
    )
    assert anchors.why == 'fewer with --image-size 640 (5%)'


@pytest.mark.parametrize(('batch', 'rate'), [(2, 0.001), (8, None), (32, None), (128, 0.004)])
def test_choose__the_rate_follows_the_root_of_the_batch(batch: int, rate: float | None) -> None:
    found = changes(Statistics(560, 900), USUAL._replace(batch=batch))
    assert found.get('optim_wrapper.optimizer.lr') == rate


def test_choose__long_trainings_have_the_references_statistics() -> None:
    assert changes(Statistics(20_000, 90_000), USUAL)['model.neck.norm_momentum'] == 0.01
    assert 'model.neck.norm_momentum' not in changes(Statistics(2_000, 9_000), USUAL)


def test_lowered__tells_what_holds_for_the_time() -> None:
    before = choose(Statistics(140, 900), USUAL)
    by_data, evaluation, few = lowered(before, 10, 170)
    assert by_data.why.endswith('; --time leaves 10')
    assert evaluation.value == 'every 4 epochs and after the last one'
    assert (few.value, few.why) == ('170 in all', 'a new head needs some hundred; more --time')
    assert lowered(before, 3, 600)[1].value == 'after the last epoch'
    short = choose(Statistics(80, 90), USUAL._replace(epochs=3), ['train_cfg.max_epochs'])
    assert [one.name for one in short] == ['warm-up', 'few steps']
    assert [one.value for one in lowered(short, 1, 10)] == ['10 in all']


def free(options: dict[str, Any]) -> dict[str, Any]:
    """Return options that leave the length of the training to the recipe."""
    return {key: value for key, value in options.items() if not key.startswith('train_cfg')}


def test_prepare__sets_and_tells_it(data: Path, small: dict[str, Any], tmp_path: Path) -> None:
    prepared = prepare(TrainSettings(CONFIG, data, tmp_path / 'all', cfg_options=free(small)))
    assert prepared.cfg.train_cfg.max_epochs == EPOCHS[1]  # of four images
    assert prepared.cfg.train_cfg.val_interval == 8
    assert {choice.name for choice in prepared.choices} >= {'by the data', 'evaluation', 'rate'}
    options = small | {'train_cfg.max_epochs': 4}
    settings = TrainSettings(CONFIG, data, tmp_path / 'run', image_size=64, cfg_options=options)
    prepared = prepare(settings)
    assert prepared.cfg.train_cfg.max_epochs == 4
    assert prepared.cfg.param_scheduler[0].warmup_epochs == pytest.approx(0.8)
    assert {value for _, value in find_sizes(prepared.cfg)} == {(64, 64)}
    assert 'few steps' in [choice.name for choice in prepared.choices]
    own = options | {'param_scheduler.0.warmup_epochs': 3}
    prepared = prepare(TrainSettings(CONFIG, data, tmp_path / 'own', cfg_options=own))
    assert prepared.cfg.param_scheduler[0].warmup_epochs == 3


def test_prepare__with_a_time_the_statistics_of_short_trainings_stay(
    data: Path, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many steps fit is measured later; the data alone would ask for a long training."""
    monkeypatch.setattr(recipe, '_LONG_STEPS', 1)
    for seconds, momentum in ((None, 0.01), (60.0, 0.1)):
        folder = tmp_path / str(seconds)
        given = TrainSettings(CONFIG, data, folder, seconds=seconds, cfg_options=free(small))
        assert prepare(given).cfg.model.neck.norm_momentum == momentum


def test_prepare__a_config_of_a_person_stays(
    data: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    mine = tmp_path / 'mine.py'
    mine.write_text(f'_base_ = {str(CONFIG)!r}\ntrain_cfg = dict(max_epochs=7)\n')
    prepared = prepare(TrainSettings(mine, data, tmp_path / 'run', cfg_options=free(small)))
    assert prepared.cfg.train_cfg.max_epochs == 7
    assert not [choice for choice in prepared.choices if choice.keys]
