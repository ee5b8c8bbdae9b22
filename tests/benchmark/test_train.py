"""A training step, ours and effdet's, on a small Lite0 with random weights."""

import multiprocessing

import pytest
import torch
from benchmark_support import NEEDS_EFFDET, settings

from effdet_plugin import benchmark
from effdet_plugin.benchmark import FORMS, train
from effdet_plugin.benchmark.train_worker import Subject, Variant, random_boxes
from effdet_plugin.errors import ConfigError, UserError

OURS = Variant('eager', keeps_memory=False)


def test_effdet_computes_the_same_losses_and_calls_more_operators() -> None:
    pytest.importorskip('effdet', reason=NEEDS_EFFDET)
    own = Subject(OURS, settings(), 2)
    theirs = Subject(Variant('effdet', is_rival=True, keeps_memory=False), settings(), 2)
    assert theirs.loss() == pytest.approx(own.loss(), rel=train.BOUND)
    assert own.operators() < theirs.operators()


def test_a_step_updates_the_weights_and_takes_time() -> None:
    subject = Subject(Variant('bf16', channels_last=True, is_bf16=True), settings(), 1)
    before = subject.loss()
    wall, cpu = subject.timed_step()
    assert wall > 0
    assert cpu > 0
    assert subject.loss() != before


def test_measure__a_process_for_each_form() -> None:
    found = benchmark.run('train', settings(rounds=1, threads=1, forms=('eager',)))
    row = found.to_dict()['train/b1/lite0_coco eager']
    assert row['median_ms'] > 0
    assert row['operators'] > 1000
    assert row['peak_mb'] > 0


def test_measure__what_differs_is_not_timed() -> None:
    class Fake(train.Worker):
        def ask(self, request: str) -> dict[str, float]:
            return {'class': 1.0 if self.variant is OURS else 1.01}

    others = [Variant('effdet', is_rival=True), Variant('bf16', is_bf16=True)]
    with pytest.raises(ConfigError, match='effdet does not compute the same as eager: class loss'):
        train.compare([Fake(OURS, None), Fake(others[0], None)])
    train.compare([Fake(OURS, None), Fake(others[1], None)])


def test_memory__switches_of_the_network_keep_less() -> None:
    plain, *others = (
        variant for variant in train.variants(settings(forms=FORMS)) if variant.channels_last
    )
    kept = [Subject(variant, settings(), 2).memory()['kept'] for variant in (plain, *others)]
    assert [variant.name for variant in others] == ['bf16', 'recompute', 'checkpoint']
    assert kept[2] < 0.65 * kept[0]
    assert kept[3] < 0.25 * kept[0]


def test_measure__memory_relates_to_the_first_form() -> None:
    given = settings(rounds=1, threads=1, forms=('eager', 'recompute'))
    found = benchmark.run('memory', given).to_dict()
    plain, saving = (found[f'memory/b1/lite0_coco {name}'] for name in ('eager', 'recompute'))
    assert plain['largest_mb'] > plain['kept_mb'] > saving['kept_mb'] > 0
    assert 'against' not in plain
    assert saving['speedup'] > 0


def test_variants__effdet_also_as_well_as_it_can() -> None:
    names = [v.name for v in train.variants(settings(forms=('eager', 'fast'), against='effdet'))]
    assert names == ['eager', 'effdet', 'effdet eager, memory kept']
    with pytest.raises(ConfigError, match='eager, channels_last, bf16'):
        train.variants(settings(forms=('fast',)))


def test_random_boxes__lie_in_the_image() -> None:
    boxes, labels = random_boxes(20, (128, 256), 3, torch.Generator().manual_seed(1))
    assert boxes.shape == (20, 8, 4)
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., 2:] <= torch.tensor([256, 128])).all()
    assert set(labels.flatten().tolist()) == {0, 1, 2}


def test_worker__a_process_that_is_killed_is_one_line() -> None:
    """As a system without free memory does; a broken pipe must not pass for a closed stdout."""

    def ask_a_dead_one(worker: train.Worker) -> None:
        killed = multiprocessing.active_children()[0]
        killed.kill()
        killed.join(10)
        for _ in range(2):  # the second one at the latest is not sent
            worker.ask('step')

    with (
        train.workers_of(settings(forms=('eager',)), 1, lambda _: None) as (worker,),
        pytest.raises(UserError, match='the process of eager has been killed'),
    ):
        ask_a_dead_one(worker)
