from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from effdet_plugin.errors import ConfigError
from effdet_plugin.models import EfficientDet
from effdet_plugin.models.fold import ConstantFusion, StaticSameConv2d, fold

SIZE = (128, 192)


def build(
    backbone: dict[str, Any] | None = None,
    neck: dict[str, Any] | None = None,
    bbox_head: dict[str, Any] | None = None,
    **settings: Any,
) -> EfficientDet:
    """A small network whose BN have statistics and weights unlike the initial ones."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    base = dict(type='TimmBackbone', model_name='tf_efficientnet_lite0', norm_eps=1e-3)
    pyramid: dict[str, Any] = dict(
        type='BiFPN', in_channels=[40, 112, 320], out_channels=8, num_cells=2
    )
    head = dict(type='EfficientDetHead', num_classes=3, in_channels=8, stacked_convs=2)
    model: EfficientDet = MODELS.build(
        dict(
            type='EfficientDet',
            data_preprocessor=dict(type='EfficientDetDataPreprocessor'),
            backbone={**base, **(backbone or {})},
            neck={**pyramid, **(neck or {})},
            bbox_head={**head, **(bbox_head or {})},
            **settings,
        )
    )
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, 0, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        if type(module).__name__ == 'Fusion' and module.weights is not None:
            nn.init.uniform_(module.weights, -0.2, 2)
    return model.eval()


def difference(model: nn.Module, other: nn.Module, size: tuple[int, int] = SIZE) -> float:
    """Largest difference of any map of raw outputs, as a share of the map's largest value."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pairs = [
            (a, b)
            for maps, others in zip(model(images), other(images), strict=True)
            for a, b in zip(maps, others, strict=True)
        ]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, _BatchNorm) for m in model.modules())


@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(backbone=dict(model_name='tf_efficientnet_b0'), channels_last=True),
        dict(bbox_head=dict(survival_prob=0.8, act='relu6')),
        dict(bbox_head=dict(separable=False), neck=dict(separable=False)),
        dict(neck=dict(topology='qufpn', fusion='attn', num_cells=1)),
        dict(neck=dict(topology='fpn', fusion='sum', conv_bn_act_pattern=True, num_cells=1)),
        dict(neck=dict(topology='panet', fusion='channel_attn', pool_type='avg', num_cells=1)),
        dict(neck=dict(topology='fully_connected', fusion='channel_fast_attn', num_cells=1)),
        dict(neck=dict(apply_bn_for_resampling=False, conv_after_downsample=True, num_cells=1)),
        dict(neck=dict(conv_after_downsample=True, num_cells=1)),
        dict(
            backbone=dict(model_name='resnet18', drop_path_rate=0.2),
            neck=dict(in_channels=[128, 256, 512], num_cells=1),
        ),
        dict(
            backbone=dict(model_name='mobilenetv3_small_100'),
            neck=dict(in_channels=[24, 48, 576], num_cells=1),
        ),
    ],
)
def test_fold__gives_the_same_outputs_without_bn(settings: dict[str, Any]) -> None:
    model = build(**settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold(model, SIZE)
    assert norms(model) > 0
    assert norms(folded) == 0
    assert difference(model, folded) < 1e-5
    assert not any(p.requires_grad for p in folded.parameters())
    assert not any(m.training for m in folded.modules())
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize('size', [(128, 192), (96, 130), (161, 97)])
def test_fold__without_a_size_takes_any(size: tuple[int, int]) -> None:
    model = build()
    folded = fold(model)
    assert not any(isinstance(m, StaticSameConv2d) for m in folded.modules())
    assert difference(model, folded, size) < 1e-5


@pytest.mark.parametrize('size', [(160, 160), (97, 161)])
def test_fold__of_a_size_with_uneven_maps(size: tuple[int, int]) -> None:
    model = build()
    assert difference(model, fold(model, size), size) < 1e-5


def test_fold__of_a_size_refuses_another_padding() -> None:
    folded = fold(build(), SIZE)
    images = torch.zeros(1, 3, 131, 192)
    with pytest.raises(ConfigError, match=r'folded for images of another size.*131x192'):
        folded(images)


def test_fold__multiples_of_128_share_their_padding() -> None:
    model = build()
    assert difference(model, fold(model, SIZE), (256, 128)) < 1e-5


def test_fold__copies_pointwise_convolutions_only() -> None:
    model = build()
    extra = sum(p.numel() for p in fold(model, SIZE).bbox_head.cls_tower.parameters()) - sum(
        p.numel() for p in model.bbox_head.cls_tower.parameters()
    )
    # 2 repeats: 5 pointwise convolutions of 8 x 8 weights and 8 biases in place of one, and no BN
    # of 8 scales and 8 shifts at each of 5 levels.
    assert extra == 2 * (4 * (64 + 8) - 5 * 16)


def test_fold__makes_fusion_weights_constants() -> None:
    model = build(neck=dict(num_cells=1))
    fusions = [m for m in fold(model, SIZE).modules() if isinstance(m, ConstantFusion)]
    assert len(fusions) == 8
    (first, *_) = model.neck.cells[0].nodes
    scales = torch.stack([x.flatten() for x in fusions[0].buffers()]).flatten()
    assert torch.equal(scales, first.fusion.normalized_weights())


def test_fold__ignores_options_of_training() -> None:
    model = build(with_cp=True)
    model.backbone.compile()
    folded = fold(model, SIZE)
    assert folded.backbone._compiled_call_impl is None
    assert not folded.backbone.with_cp
    assert not folded.neck.with_cp
    assert model.neck.with_cp


def test_fold__detects_what_the_network_detects() -> None:
    model = build()
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    found = []
    for network in (model, fold(model, SIZE)):
        samples = [DetDataSample(metainfo={'img_shape': SIZE, 'scale_factor': (1.0, 1.0)})] * 2
        with torch.no_grad():
            found.append(network.test_step({'inputs': images, 'data_samples': samples}))
    for a, b in zip(*found, strict=True):
        assert len(a.pred_instances) == 100
        torch.testing.assert_close(a.pred_instances.scores, b.pred_instances.scores)


def test_fold__refuses_a_bn_before_its_convolution() -> None:
    model = build(
        backbone=dict(model_name='densenet121'),
        neck=dict(in_channels=[512, 1024, 1024], num_cells=1),
    )
    with pytest.raises(ConfigError, match=r'backbone\.model\.features_\S+norm.*cannot be folded'):
        fold(model, SIZE)


def test_fold__refuses_a_bn_without_statistics_and_one_that_is_not_alone() -> None:
    model = build()
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model.neck.cells[0].nodes[0].bn = norm
    with pytest.raises(ConfigError, match=r'neck\.cells\.0\.nodes\.0\.bn \(BatchNorm2d\)'):
        fold(model, SIZE)
    model = build()
    cell = model.neck.cells[0]
    cell.nodes[1].conv = cell.nodes[0].conv  # one convolution, two BN
    with pytest.raises(ConfigError, match=r'neck\.cells\.0\.nodes\.0\.bn'):
        fold(model, SIZE)
