from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models import BiFPN
from effdet_plugin.models.layers.fusion import METHODS
from effdet_plugin.models.necks.topology import TOPOLOGIES
from effdet_plugin.ops import level_sizes


def maps(channels: list[int], size: tuple[int, int] = (64, 96), finest: int = 3) -> list[Tensor]:
    sizes = level_sizes(size, finest, finest + len(channels) - 1)
    return [torch.randn(2, c, *s) for c, s in zip(channels, sizes, strict=True)]


def build(**settings: Any) -> BiFPN:
    neck: BiFPN = MODELS.build(dict(type='BiFPN', num_cells=1, **settings))
    return neck


@pytest.mark.parametrize('extra', [0, 1, 3])
@pytest.mark.parametrize('inputs', range(1, 7))
def test_forward__any_number_of_inputs_and_outputs(inputs: int, extra: int) -> None:
    channels = [4 + i for i in range(inputs)]
    neck = build(in_channels=channels, out_channels=6, num_outs=inputs + extra)
    outputs = neck(maps(channels, (128, 128)))
    expected = level_sizes((128, 128), 3, 2 + inputs + extra)
    assert [tuple(x.shape) for x in outputs] == [(2, 6, *size) for size in expected]


@pytest.mark.parametrize('topology', TOPOLOGIES)
@pytest.mark.parametrize('fusion', METHODS)
def test_forward__every_topology_and_fusion_has_gradients(topology: str, fusion: str) -> None:
    settings: dict[str, Any] = dict(in_channels=[4, 6], out_channels=6, num_outs=3)
    neck = build(topology=topology, fusion=fusion, **settings)
    outputs = neck(maps([4, 6]))
    torch.stack([x.square().sum() for x in outputs]).sum().backward()
    assert all(p.grad is not None for p in neck.parameters())


@pytest.mark.parametrize('size', [(320, 320), (64, 64), (100, 163), (8, 8), (1, 1)])
def test_forward__awkward_sizes(size: tuple[int, int]) -> None:
    neck = build(in_channels=[4, 4, 4], out_channels=4)
    outputs = neck.eval()(maps([4, 4, 4], size))
    assert [x.shape[-2:] for x in outputs] == level_sizes(size, 3, 7)


def test_forward__320_pixels_make_a_p7_of_3() -> None:
    neck = build(in_channels=[4, 4, 4], out_channels=4)
    assert neck(maps([4, 4, 4], (320, 320)))[-1].shape[-2:] == (3, 3)


def test_forward__a_single_image_with_a_1x1_map_trains() -> None:
    neck = build(in_channels=[4, 4, 4], out_channels=4).train()
    assert neck([x[:1] for x in maps([4, 4, 4], (64, 64))])[-1].shape == (1, 4, 1, 1)


def test_forward__512x16_is_too_thin() -> None:
    neck = build(in_channels=[4, 4, 4], out_channels=4)
    with pytest.raises(ConfigError, match=r'map to \d+x\d+') as error:
        neck(maps([4, 4, 4], (512, 16)))
    assert '\n' not in str(error.value)


def test_start_level__first_maps_are_left_alone() -> None:
    neck = build(in_channels=[3, 5, 4, 6], out_channels=4, num_outs=3, start_level=2)
    assert not any(p.shape[1] in (3, 5) for p in neck.parameters() if p.dim() == 4)
    outputs = neck(maps([3, 5, 4, 6], (128, 128)))
    assert [x.shape[-2:] for x in outputs] == [(4, 4), (2, 2), (1, 1)]


def test_extra_levels__come_from_the_raw_last_map() -> None:
    neck = build(in_channels=[4, 6], out_channels=4, num_outs=4)
    assert [level.conv is None for level in neck.extra_levels.children()] == [False, True]
    levels = neck.add_levels(maps([4, 6]))
    assert [x.shape[1] for x in levels] == [4, 6, 4, 4]


def test_channel_matching__each_use_has_its_own_convolution() -> None:
    neck = build(in_channels=[40, 112, 320], out_channels=64)
    names = [
        name for name, _ in neck.named_parameters() if 'resamples' in name and 'conv.w' in name
    ]
    uses = [(int(name.split('.')[3]), int(name.split('.')[5])) for name in names]
    assert uses == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]  # (node, position)


def test_state__parameters_of_d0_and_names() -> None:
    neck = BiFPN([40, 112, 320], 64)
    counted = sum(p.numel() for p in neck.parameters())
    assert counted == 175_609 + 20_672  # the reference's pyramid and extra level
    state = neck.state_dict()
    assert state['cells.2.nodes.4.fusion.weights'].shape == (3,)
    assert state['extra_levels.0.conv.weight'].shape == (64, 320, 1, 1)
    assert 'cells.0.nodes.7.conv.pointwise.bias' in state
    lite = BiFPN([40, 112, 320], 64, fusion='sum')
    assert sum(p.numel() for p in lite.parameters()) == 175_552 + 20_672


def test_with_cp__same_gradients_and_statistics() -> None:
    settings: dict[str, Any] = dict(in_channels=[4, 6], out_channels=6, num_outs=4)
    plain, saving = build(**settings).train(), build(with_cp=True, **settings).train()
    saving.load_state_dict(plain.state_dict())
    inputs = maps([4, 6])
    for neck in (plain, saving):
        torch.stack([x.square().sum() for x in neck(inputs)]).sum().backward()
    for own, expected in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[name], value, msg=name)


@pytest.mark.parametrize(
    'settings', [dict(num_outs=1), dict(num_outs=5, start_level=2), dict(num_outs=0, start_level=2)]
)
def test_constructor__refuses_fewer_outputs_than_inputs(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='num_outs='):
        build(in_channels=[4, 4], out_channels=4, **settings)


def test_forward__refuses_another_number_of_maps() -> None:
    with pytest.raises(ConfigError, match=r'1 maps.*in_channels.* 2'):
        build(in_channels=[4, 4], out_channels=4)(maps([4]))


def test_forward__a_backbone_that_rounds_down_is_one_line() -> None:
    rounded_down = [torch.rand(1, 4, side, side) for side in (25, 12, 6)]
    with pytest.raises(ConfigError, match=r'\(25, 25\).*\(12, 12\).*multiples'):
        BiFPN([4, 4, 4], 4, num_outs=3, num_cells=1)(rounded_down)


def test_initial_values__glorot_of_the_reference() -> None:
    neck = BiFPN([40, 112, 320], 64)
    state = neck.state_dict()
    depthwise = torch.cat([v.flatten() for k, v in state.items() if k.endswith('depthwise.weight')])
    assert depthwise.std().item() == pytest.approx(0.0585, rel=0.02)
    p6 = state['extra_levels.0.conv.weight']
    assert p6.abs().max().item() == pytest.approx((6 / 384) ** 0.5, rel=0.01)
    assert not any(v.any() for k, v in state.items() if k.endswith('conv.bias'))
    assert all((v == 1).all() for k, v in state.items() if k.endswith('fusion.weights'))


def test_neck__in_another_detector() -> None:
    """A RetinaNet of mmdet's with our neck: one training step."""
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    head = MODELS.build(
        ConfigDict(
            type='mmdet.RetinaHead',
            num_classes=2,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8, 16, 32]
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            train_cfg=dict(
                assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4),
                sampler=dict(type='PseudoSampler'),
                allowed_border=-1,
                pos_weight=-1,
            ),
            loss_cls=dict(type='SigmoidFocalLoss', use_sigmoid=True),
        )
    )
    neck = build(in_channels=[4, 6], out_channels=8, num_outs=3)
    truth = InstanceData(bboxes=torch.tensor([[4.0, 4, 40, 40]]), labels=torch.tensor([1]))
    metas = [{'img_shape': (64, 96), 'pad_shape': (64, 96)}] * 2
    losses = head.loss_by_feat(*head(neck(maps([4, 6]))), [truth, truth], metas)
    torch.stack([x for levels in losses.values() for x in levels]).sum().backward()
    assert all(p.grad is not None for p in neck.parameters())


class Gate(nn.Module):
    """A fusion that begins as its author wants."""

    def __init__(self, num_inputs: int, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 2.0)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.gate(maps[0])


def test_norm_momentum__reaches_every_bn() -> None:
    norms = [m for m in BiFPN([8, 16], 4, norm_momentum=0.25).modules() if is_norm(m)]
    assert len(norms) == 3 * 8 + 3 + 1  # nodes, channel-matching convolutions, extra level
    assert {norm.momentum for norm in norms} == {0.25}
    assert {norm.momentum for norm in BiFPN([8, 16], 4).modules() if is_norm(norm)} == {0.01}


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d)


def test_initial_values__of_a_fusion_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS.module_dict, 'Gate', Gate)
    neck = BiFPN([8, 16], 4, num_outs=3, num_cells=2, fusion=dict(type='Gate'))
    gates = [module.gate for module in neck.modules() if isinstance(module, Gate)]
    assert gates
    for gate in gates:
        assert not gate.weight.any()
        assert (gate.bias == 2).all()
