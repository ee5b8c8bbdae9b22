"""A training step, ours and effdet's, on a small Lite0 with random weights."""

import pytest
import torch
from benchmark_support import NEEDS_EFFDET, settings

from effdet_plugin import benchmark
from effdet_plugin.benchmark import train
from effdet_plugin.benchmark.train_worker import Subject, Variant, random_boxes
from effdet_plugin.errors import ConfigError

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
    class Fake(train._Worker):
        def ask(self, request: str) -> dict[str, float]:
            return {'class': 1.0 if self.variant is OURS else 1.01}

    others = [Variant('effdet', is_rival=True), Variant('bf16', is_bf16=True)]
    with pytest.raises(ConfigError, match='effdet does not compute the same as eager: class loss'):
        train._compare([Fake(OURS, None), Fake(others[0], None)])
    train._compare([Fake(OURS, None), Fake(others[1], None)])


def test_recompute__is_of_the_network() -> None:
    variant = Variant('recompute', channels_last=True, recomputes=True, keeps_memory=False)
    network = Subject(variant, settings(), 1).trainer.network
    assert network.backbone.recompute_norm_act
    assert network.bbox_head.recompute_norm_act


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
