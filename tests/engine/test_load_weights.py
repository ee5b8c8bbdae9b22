"""Checkpoints of other classes: what is kept, what is re-initialised, what is refused."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forked import in_child
from mmdet.registry import RUNNERS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch import Tensor, nn
from toy import ToyNet, toy_config, train

from effdet_plugin.engine import load_weights
from effdet_plugin.engine.load_weights import LoadMatchingHook, match_classes
from effdet_plugin.errors import CheckpointError
from effdet_plugin.weights_only import check_classes, check_compatible, num_classes_of

LAYER = 'bbox_head.cls_tower.predict.pointwise'
KERNEL, BIAS = f'{LAYER}.weight', f'{LAYER}.bias'
OLD = ('cat', 'dog', 'cow')


def checkpoint_of(net: ToyNet, classes: tuple[str, ...] | None = OLD) -> dict[str, Any]:
    meta = {} if classes is None else {'dataset_meta': {'classes': classes}}
    return {'state_dict': copy.deepcopy(net.state_dict()), 'meta': meta}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that loading has logged."""
    lines: list[str] = []
    monkeypatch.setattr(load_weights, 'print_log', lambda line, **_: lines.append(line))
    return lines


def load(target: ToyNet, checkpoint: dict[str, Any], classes: Any = None) -> None:
    """Load as a training does, which calls the hook with a checkpoint and then loads it."""
    loop = BaseLoop.__new__(EpochBasedTrainLoop)
    dataset = SimpleNamespace(metainfo={'classes': classes})
    runner: Any = SimpleNamespace(_resume=False, _train_loop=loop, model=target)
    runner.train_dataloader = SimpleNamespace(dataset=dataset)
    LoadMatchingHook().after_load_checkpoint(runner, checkpoint)
    target.load_state_dict(checkpoint['state_dict'], strict=False)


def test_load__rows_of_shared_classes_are_copied(log: list[str]) -> None:
    source, target = ToyNet(3), ToyNet(4)
    own = copy.deepcopy(target.state_dict())
    load(target, checkpoint_of(source), ('cow', 'hen', 'cat', 'pig'))
    assert len(log) == 1
    assert '2 of 4 classes' in log[0]
    assert KERNEL in log[0]
    for name in (KERNEL, BIAS):
        got = target.state_dict()[name].unflatten(0, (2, 4))
        old = source.state_dict()[name].unflatten(0, (2, 3))
        assert torch.equal(got[:, [0, 2]], old[:, [2, 0]])
        assert torch.equal(got[:, [1, 3]], own[name].unflatten(0, (2, 4))[:, [1, 3]])
    for name, tensor in source.state_dict().items():
        if LAYER not in name:
            assert torch.equal(target.state_dict()[name], tensor), name


def test_load__equal_number_in_another_order() -> None:
    source, target = ToyNet(3), ToyNet(3)
    load(target, checkpoint_of(source), ('dog', 'cow', 'cat'))
    got = target.state_dict()[BIAS].unflatten(0, (2, 3))
    assert torch.equal(got, source.state_dict()[BIAS].unflatten(0, (2, 3))[:, [1, 2, 0]])


@pytest.mark.parametrize('classes', [OLD, None])
def test_load__the_same_classes_or_unknown_ones_of_equal_number(
    classes: Any, log: list[str]
) -> None:
    source, target = ToyNet(3), ToyNet(3)
    load(target, checkpoint_of(source, classes), OLD)
    assert not log
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


@pytest.mark.parametrize('names', [(None, ('a', 'b')), (OLD, None), (None, None)])
def test_load__without_names_the_predictor_is_reinitialised(names: Any, log: list[str]) -> None:
    source, target = ToyNet(3), ToyNet(2)
    own = copy.deepcopy(target.state_dict())
    load(target, checkpoint_of(source, names[0]), names[1])
    assert len(log) == 1
    assert KERNEL in log[0]
    assert BIAS in log[0]
    assert torch.equal(target.state_dict()[KERNEL], own[KERNEL])
    assert torch.equal(target.backbone[0].weight, source.backbone[0].weight)


def test_load__a_bare_state_dict_of_a_wrapped_model() -> None:
    source, target = ToyNet(3), ToyNet(3)
    load(target, {f'module.{k}': v for k, v in source.state_dict().items()})
    assert torch.equal(target.state_dict()[KERNEL], source.state_dict()[KERNEL])


def test_match__with_other_anchors_their_boxes_are_reinitialised_too() -> None:
    own = {KERNEL: torch.zeros(9, 8, 1, 1), 'h.box_tower.predict.bias': torch.zeros(12)}
    weights = {KERNEL: torch.ones(6, 8, 1, 1), 'h.box_tower.predict.bias': torch.ones(8)}
    matched = match_classes(weights, own, OLD, OLD)
    assert all(not tensor.any() for tensor in matched.weights.values())
    assert matched.line is not None


def test_check__another_network_is_an_error() -> None:
    own = ToyNet().state_dict()
    other = {**own, 'backbone.0.weight': torch.zeros(16, 3, 3, 3)}
    with pytest.raises(CheckpointError, match=r'backbone\.0\.weight \[16, 3, 3, 3\] for \[8'):
        load(ToyNet(), other)
    with pytest.raises(CheckpointError, match=f'of {len(own)} tensors'):
        check_compatible({'x': torch.ones(1)}, own, complete=False)
    part = {k: v for k, v in own.items() if k.startswith('backbone')}
    check_compatible(part, own, complete=False)
    with pytest.raises(CheckpointError, match=re.escape(KERNEL.removesuffix('pointwise.weight'))):
        check_compatible(part, own, complete=True)


def test_check_classes__in_prediction() -> None:
    check_classes(None, 4)
    check_classes(OLD, 3)
    check_classes(OLD, None)
    with pytest.raises(CheckpointError, match=r'3 classes, .* 4.*num_classes=3'):
        check_classes(OLD, 4)


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp('trained')
    assert in_child(train, toy_config(work_dir, train_cfg={'max_epochs': 1})) == 0
    return work_dir / 'epoch_1.pth'


def four_classes(work_dir: Path, trained: Path) -> Any:
    classes = ('b', 'x', 'y', 'a')
    dataset = {'dataset': {'classes': classes}}
    return toy_config(
        work_dir,
        model={'num_classes': 4},
        load_from=str(trained),
        train_dataloader={**dataset, 'num_workers': 0, 'persistent_workers': False},
        val_dataloader=dataset,
        train_cfg={'max_epochs': 1},
    )


def test_hook__fine_tunes_through_load_from(tmp_path: Path, trained: Path) -> None:
    """Model and moving average both start from the matched weights."""
    runner = RUNNERS.build(four_classes(tmp_path, trained))
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.call_hook('before_run')
    runner.load_or_resume()
    runner.call_hook('before_train')
    old = torch.load(trained, weights_only=True)['state_dict']
    average = next(h for h in runner.hooks if hasattr(h, 'ema_model')).ema_model.module
    for model in (runner.model, average):
        state = model.state_dict()
        assert torch.equal(state['backbone.0.weight'], old['backbone.0.weight'])
        rows = state[BIAS].unflatten(0, (2, 4))[:, [3, 0]]
        assert torch.equal(rows, old[BIAS].unflatten(0, (2, 3))[:, [0, 1]])


def test_hook__refuses_in_evaluation(tmp_path: Path, trained: Path) -> None:
    config = four_classes(tmp_path, trained)
    config.test_dataloader = config.val_dataloader
    config.test_evaluator, config.test_cfg = config.val_evaluator, {'type': 'TestLoop'}
    with pytest.raises(CheckpointError, match=r'3 classes, .* 4.*num_classes=3'):
        RUNNERS.build(config).test()


@pytest.mark.parametrize('head', [dict(bbox_head=True), dict(roi_head=True), {}])
def test_num_classes__of_one_and_two_stages(head: dict[str, bool]) -> None:
    counted = SimpleNamespace(num_classes=7)
    detector = nn.Module()
    if 'bbox_head' in head:
        detector.bbox_head = counted
    if 'roi_head' in head:
        detector.roi_head = SimpleNamespace(bbox_head=counted)
    assert num_classes_of(detector) == (7 if head else None)


def test_match__the_last_layer_of_another_head_is_reinitialised() -> None:
    def weights(classes: int, channels: int = 4) -> dict[str, Tensor]:
        shapes = {'cls_convs.0.conv.weight': (channels, 4, 3, 3), 'retina_reg.bias': (36,)}
        shapes |= {'retina_cls.weight': (9 * classes, channels, 3, 3)}
        shapes |= {'retina_cls.bias': (9 * classes,)}
        return {f'bbox_head.{name}': torch.rand(shape) for name, shape in shapes.items()}

    old, own = weights(80), weights(2)
    matched = match_classes(old, own, None, ('a', 'b'))
    check_compatible(matched.weights, own, complete=True)
    for name in own:
        source = own if 'retina_cls' in name else old
        assert torch.equal(matched.weights[name], source[name]), name
    other = weights(80, channels=8)
    with pytest.raises(
        CheckpointError, match=r'bbox_head\.\S+ \[\d+, 8, 3, 3\] for \[\d+, 4, 3, 3\]'
    ):
        check_compatible(match_classes(other, own, None, ('a', 'b')).weights, own, complete=True)
