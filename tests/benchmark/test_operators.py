"""Operators and memory of a training step of D0: what does not depend on the machine."""

from typing import Any

import pytest
import torch
from benchmark_support import settings
from mmengine.structures import InstanceData

import support
from effdet_plugin.benchmark import train_worker
from effdet_plugin.benchmark.counting import operators
from effdet_plugin.benchmark.train_worker import Subject, Variant
from effdet_plugin.engine.ema import RampUpEMA

D0 = support.REPOSITORY / 'configs' / 'efficientdet' / 'd0_coco.py'


@pytest.fixture(scope='module')
def subject() -> Subject:
    made = Subject(Variant('eager'), settings(config=D0), 2)
    made.step()  # makes anchors and the optimiser's state
    return made


def loss_inputs(subject: Subject, batch: int) -> tuple[Any, Any, Any, Any]:
    """Head, its outputs of random images of 128 px, boxes and metas."""
    head: Any = subject.trainer.network.bbox_head
    maps = [torch.rand(batch, 64, s, s) for s in (16, 8, 4, 2, 1)]
    generator = torch.Generator().manual_seed(0)
    boxes, labels = train_worker.random_boxes(batch, (128, 128), head.num_classes, generator)
    instances = [
        InstanceData(bboxes=box, labels=own) for box, own in zip(boxes, labels, strict=True)
    ]
    with torch.no_grad():
        outputs = head.eval()(maps)
    head.train()
    return head, outputs, instances, [{'batch_input_shape': (128, 128)}] * batch


def test_step(subject: Subject) -> None:
    assert subject.operators() <= 2000


def test_loss_clip_optimizer_and_average(subject: Subject) -> None:
    trainer: Any = subject.trainer
    network, optim = trainer.network, trainer._wrapper
    head, outputs, instances, metas = loss_inputs(subject, 2)
    loss = operators(lambda: head.loss_by_feat(*outputs, instances, metas))
    average = RampUpEMA(network)
    sum(trainer.losses(subject.pixels).values(), torch.zeros(())).backward()
    update = operators(
        lambda: (optim._clip_grad(), optim.optimizer.step(), average.update_parameters(network))
    )
    assert loss.total() <= 135
    assert loss.total() + update.total() <= 160


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('value', [80.0, -80.0])
def test_loss__finite_at_large_logits(subject: Subject, value: float, dtype: torch.dtype) -> None:
    head, outputs, instances, metas = loss_inputs(subject, 1)
    logits, deltas = (
        [(x * 0 + value).to(dtype).detach().requires_grad_() for x in o] for o in outputs
    )
    losses = head.loss_by_feat(logits, deltas, instances, metas)
    sum(losses.values(), torch.zeros(())).backward()
    for x in [*losses.values(), *(y.grad for y in [*logits, *deltas])]:
        assert torch.isfinite(x).all()


def test_loss__memory_of_many_boxes(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """D7x's 442,260 anchors and 100 boxes take 472 MB by the same measure, 3.5 x the logits."""
    monkeypatch.setattr(train_worker, 'BOXES_PER_IMAGE', 100)
    head, outputs, instances, metas = loss_inputs(subject, 1)
    logits, deltas = ([x.detach().requires_grad_() for x in o] for o in outputs)

    def call() -> None:
        losses = head.loss_by_feat(logits, deltas, instances, metas)
        sum(losses.values(), torch.zeros(())).backward()

    call()  # makes the anchors
    for x in [*logits, *deltas]:
        x.grad = None
    _, largest = train_worker.allocated_mb(call, torch.device('cpu'))
    assert largest < 5 * sum(x.numel() for x in logits) * 4 / 2**20
