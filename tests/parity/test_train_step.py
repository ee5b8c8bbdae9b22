"""Three training steps of D0 through the optimiser wrapper and the average of our configs.

The stored steps are the Keras trainer's. It differs from the graph trainer, which ours is, in two
points that the test undoes: its momentum holds the learning rate, and its average is one update
behind. Both are what the reference's two trainers differ in, too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from ladder import Arrays, difference, nchw, nhwc, swap, swap_channels, worst
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData
from oracle_networks import CONFIGS, build, structure_of
from torch import Tensor

import support
from effdet_plugin.convert.key_map import invert
from effdet_plugin.convert.key_map_tensorflow import VARIABLES
from effdet_plugin.engine.optim import keep_depthwise_float32

SIZE = (256, 256)
RATES = (0.008, 0.00872, 0.00944)
MOMENTUM, DECAY, BOX_WEIGHT = 0.9, 4e-5, 50.0
# Two float32 runs differ by 1e-5 in training mode; the issue asks for 1e-4.
LIMIT = 3e-5
# Of these the true gradient is 0: a bias before BN.
ROUNDING = ('resample_p6/conv2d/bias',)


@dataclass
class State:
    """What a step leaves, by the reference's variable names."""

    losses: dict[str, Tensor]
    weight_loss: float
    grads: dict[str, Tensor]
    weights: dict[str, Tensor]
    averages: dict[str, Tensor]
    velocity: dict[str, Tensor]


@dataclass
class Run:
    forward: dict[str, Tensor]
    steps: list[State]


def inputs(arrays: Arrays) -> tuple[Tensor, list[DetDataSample]]:
    seeds = arrays['image_seeds'].tolist()
    samples = []
    for image in range(len(seeds)):
        sample = DetDataSample(metainfo={'batch_input_shape': SIZE, 'img_shape': SIZE})
        sample.gt_instances = InstanceData(
            bboxes=swap(torch.from_numpy(arrays[f'gt_boxes_{image}'])),
            labels=torch.from_numpy(arrays[f'gt_classes_{image}']).long() - 1,
        )
        samples.append(sample)
    return nchw(support.recipe().net_input('efficientdet-d0', seeds, *SIZE)), samples


class Trainer:
    """A model with our config's optimiser and average, moved to the Keras trainer's flavour."""

    def __init__(self, option: str = '') -> None:
        self.config = Config.fromfile(CONFIGS / 'd0_coco.py')
        self.model: Any = build('d0', option).train()
        self.wrapper = build_optim_wrapper(self.model, self.config.optim_wrapper)
        ema = dict(type='RampUpEMA', model=self.model, momentum=0.0002)
        self.average = MODELS.build(ema)
        self.average.steps -= 1
        self.structure = structure_of('d0', self.config.model)
        self.previous_rate = RATES[0]

    def step(self, images: Tensor, samples: list[DetDataSample], rate: float) -> State:
        for group in self.wrapper.optimizer.param_groups:
            group['lr'] = rate
            group['momentum'] = MOMENTUM * self.previous_rate / rate
        losses = self.model.loss(images, samples)
        kernels = [p.detach().double() for _, p in self._parameters() if p.dim() == 4]
        weight_loss = DECAY / 2 * sum(kernel.square().sum().item() for kernel in kernels)
        self.wrapper.backward(torch.stack(list(losses.values())).sum())
        # The stored gradients are of the sum of losses and weights.
        decayed = {n: p.grad + DECAY * (p.dim() == 4) * p for n, p in self._parameters()}
        grads = self._by_name(decayed)
        self.wrapper.step()
        self.wrapper.zero_grad()
        self.average.update_parameters(self.model)
        self.previous_rate = rate
        buffers = {
            name: -rate * self.wrapper.optimizer.state[p]['momentum_buffer']
            for name, p in self._parameters()
        }
        return State(
            losses,
            weight_loss,
            grads,
            self._by_name(self.model.state_dict()),
            self._by_name(self.average.module.state_dict()),
            self._by_name(buffers),
        )

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        yield from self.model.named_parameters()

    def _by_name(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        whole = {name: torch.zeros_like(x) for name, x in self.model.state_dict().items()}
        whole.update({name: x.detach().clone() for name, x in tensors.items()})
        return invert(VARIABLES, self.structure, whole)


@pytest.fixture(scope='module')
def arrays() -> Arrays:
    return support.load_oracle('train_step')


@pytest.fixture(scope='module')
def run(arrays: Arrays) -> Run:
    images, samples = inputs(arrays)
    with torch.no_grad():
        logits, codes = build('d0').train()(images, mode='tensor')
    forward = {f'fwd_class_P{level}': x for level, x in enumerate(logits, start=3)}
    forward.update({f'fwd_box_P{i}': swap_channels(x) for i, x in enumerate(codes, start=3)})
    trainer = Trainer()
    return Run(forward, [trainer.step(images, samples, rate) for rate in RATES])


def test_forward__training_mode(arrays: Arrays, run: Run) -> None:
    found = worst([(n, difference(arrays, n, nhwc(x))) for n, x in run.forward.items()])
    assert found[1] < LIMIT, found


@pytest.mark.parametrize('step', [1, 2, 3])
def test_losses(arrays: Arrays, run: Run, step: int) -> None:
    state = run.steps[step - 1]
    cls, box = (state.losses[name].item() for name in ('loss_cls', 'loss_bbox'))
    own = dict(
        cls_loss=cls,
        box_loss=box / BOX_WEIGHT,
        det_loss=cls + box,
        reg_l2_loss=state.weight_loss,
        loss=cls + box + state.weight_loss,
    )
    for name, value in own.items():
        expected = float(arrays[f'step{step}_{name}'])
        assert value == pytest.approx(expected, rel=1e-5), name


def test_gradients__norm_of_every_variable(arrays: Arrays, run: Run) -> None:
    names = [str(name).removesuffix(':0') for name in arrays['trainable_names']]
    norms = np.array([run.steps[0].grads[name].norm().item() for name in names])
    expected = arrays['grad_norms']
    # Some are 0 but for rounding: what only shifts the input of a BN.
    np.testing.assert_allclose(norms, expected, rtol=1e-4, atol=5e-4)
    total = np.sqrt((norms**2).sum())
    assert total == pytest.approx(float(arrays['grad_global_norm']), rel=1e-5)


def stored(arrays: Arrays, prefix: str) -> list[str]:
    names = support.oracle_io().names(arrays)
    own = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    assert len(own) > 10
    return [name for name in own if name not in ROUNDING]


def check(arrays: Arrays, prefix: str, values: dict[str, Tensor], limit: float) -> None:
    found = worst([(n, difference(arrays, prefix + n, values[n])) for n in stored(arrays, prefix)])
    assert found[1] < limit, found


def test_gradients__elements(arrays: Arrays, run: Run) -> None:
    check(arrays, 'grad:', run.steps[0].grads, LIMIT)


@pytest.mark.parametrize('step', [1, 3])
def test_weights_and_bn_statistics(arrays: Arrays, run: Run, step: int) -> None:
    check(arrays, f'step{step}:', run.steps[step - 1].weights, 2e-6)


@pytest.mark.parametrize('step', [1, 3])
def test_averages(arrays: Arrays, run: Run, step: int) -> None:
    check(arrays, f'step{step}_ema:', run.steps[step - 1].averages, 2e-6)


@pytest.mark.parametrize(
    ('option', 'limit'),
    # PyTorch's BN of a CPU sums less exactly in channels-last order.
    [('channels_last', 2e-2), ('recompute_norm_act', LIMIT), ('with_cp', LIMIT)],
)
def test_switches__one_step(arrays: Arrays, option: str, limit: float) -> None:
    state = Trainer(option).step(*inputs(arrays), RATES[0])
    check(arrays, 'grad:', state.grads, limit)
    check(arrays, 'step1:', state.weights, max(2e-6, limit / 100))


def test_bfloat16__one_step(arrays: Arrays) -> None:
    trainer = Trainer('channels_last')
    keep_depthwise_float32(trainer.model)
    with torch.autocast('cpu', torch.bfloat16):
        state = trainer.step(*inputs(arrays), RATES[0])
    for name, key in (('loss_cls', 'cls_loss'), ('loss_bbox', 'box_loss')):
        expected = float(arrays[f'step1_{key}']) * (BOX_WEIGHT if key == 'box_loss' else 1)
        assert state.losses[name].item() == pytest.approx(expected, rel=0.02), name
    names = [str(name).removesuffix(':0') for name in arrays['trainable_names']]
    norms = np.array([state.grads[name].norm().item() for name in names])
    assert np.sqrt((norms**2).sum()) == pytest.approx(float(arrays['grad_global_norm']), rel=0.05)


def test_momentum(arrays: Arrays, run: Run) -> None:
    check(arrays, 'step1_momentum:', run.steps[0].velocity, LIMIT)
