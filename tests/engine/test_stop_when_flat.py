"""A training that no longer gets better ends, and a resumed one goes on counting."""

from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.logging import MessageHub, MMLogger

from effdet_plugin.engine.stopping import StopWhenFlatHook

AP = 'coco/bbox_mAP'


def runner_of(name: str, epochs: int = 100, interval: int = 4) -> Any:
    loop = SimpleNamespace(max_epochs=epochs, val_interval=interval, stop_training=False)
    return SimpleNamespace(
        train_loop=loop,
        message_hub=MessageHub.get_instance(name),
        logger=MMLogger.get_instance(name),
    )


def evaluations_until_the_end(runner: Any, hook: StopWhenFlatHook, scores: list[float]) -> int:
    hook.before_train(runner)
    for number, score in enumerate(scores, 1):
        hook.after_val_epoch(runner, {AP: score})
        if runner.train_loop.stop_training:
            return number
    return 0


@pytest.mark.parametrize(('share', 'ended'), [(0.4, 12), (0.8, 22), (0.1, 10)])
def test_patience_is_a_share_of_all_evaluations(share: float, ended: int) -> None:
    """25 evaluations, the second of which is the best; never less than eight are waited for."""
    scores = [0.1, 0.5, *[0.4] * 23]
    runner = runner_of(f'share {share}')
    assert evaluations_until_the_end(runner, StopWhenFlatHook(share=share), scores) == ended


def test_a_rise_starts_anew() -> None:
    scores = [0.1, *[0.05] * 9, 0.2, *[0.1] * 9, 0.3]
    assert evaluations_until_the_end(runner_of('rise'), StopWhenFlatHook(), scores) == 0


def test_a_resumed_run_goes_on_counting() -> None:
    runner = runner_of('resumed')
    assert evaluations_until_the_end(runner, StopWhenFlatHook(), [0.5, *[0.4] * 6]) == 0
    assert evaluations_until_the_end(runner, StopWhenFlatHook(), [0.4] * 20) == 4


def test_without_the_metric_nothing_is_counted() -> None:
    runner = runner_of('voc')
    hook = StopWhenFlatHook()
    hook.before_train(runner)
    for _ in range(30):
        hook.after_val_epoch(runner, {'pascal_voc/mAP': 0.1})
    assert not runner.train_loop.stop_training
