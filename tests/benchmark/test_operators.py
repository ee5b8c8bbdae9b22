"""How many operators a training step of D0 calls: what does not depend on the machine."""

from typing import Any

import pytest
import torch
from benchmark_support import settings
from mmdet.models.utils import unpack_gt_instances

import support
from effdet_plugin.benchmark.counting import operators
from effdet_plugin.benchmark.train_worker import Subject, Variant
from effdet_plugin.engine.ema import RampUpEMA

D0 = support.REPOSITORY / 'configs' / 'efficientdet' / 'd0_coco.py'


@pytest.fixture(scope='module')
def subject() -> Subject:
    made = Subject(Variant('eager'), settings(config=D0), 2)
    made.step()  # makes anchors and the optimiser's state
    return made


def test_step(subject: Subject) -> None:
    assert subject.operators() <= 2000


def test_loss_clip_optimizer_and_average(subject: Subject) -> None:
    trainer: Any = subject.trainer
    network, optim = trainer.network, trainer._wrapper
    instances, _, metas = unpack_gt_instances(trainer._samples)
    outputs = network.bbox_head(network.extract_feat(torch.rand(2, 3, 128, 128)))
    loss = operators(lambda: network.bbox_head.loss_by_feat(*outputs, instances, metas))
    average = RampUpEMA(network)
    sum(trainer.losses(subject.pixels).values(), torch.zeros(())).backward()
    update = operators(
        lambda: (optim._clip_grad(), optim.optimizer.step(), average.update_parameters(network))
    )
    assert loss.total() <= 135
    assert loss.total() + update.total() <= 160
