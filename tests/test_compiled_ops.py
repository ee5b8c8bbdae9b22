from typing import Any

import pytest
from mmcv.ops import DeformConv2d
from mmdet.models.dense_heads import TOODHead
from mmdet.models.necks import DyHead
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from effdet_plugin import compat
from effdet_plugin.compat import check_compiled_ops, missing_ops, mmcv_ext_is_stand_in
from effdet_plugin.errors import InstallError

stand_in = pytest.mark.skipif(not mmcv_ext_is_stand_in(), reason='mmcv is compiled here')


def resnet(depth: int = 18, **kwargs: Any) -> nn.Module:
    init_default_scope('mmdet')
    return MODELS.build(dict(type='ResNet', depth=depth, base_channels=8, **kwargs))


@stand_in
def test_check__refuses_deformable_convolutions_with_the_remedy() -> None:
    dcn = dict(type='DCN', deform_groups=1, fallback_on_stride=False)
    model = resnet(50, dcn=dcn, stage_with_dcn=(False, False, False, True))
    with pytest.raises(InstallError, match=r'layer4.*DeformConv2d.*install mmcv>=2.0'):
        check_compiled_ops(model)


@stand_in
def test_check__refuses_operators_called_as_functions() -> None:
    anchors = dict(
        type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8]
    )
    head = TOODHead(
        num_classes=2,
        in_channels=8,
        feat_channels=8,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=2),
        anchor_generator=anchors,
        train_cfg=None,
        test_cfg=None,
    )
    with pytest.raises(InstallError, match='TOODHead: deform_conv2d'):
        check_compiled_ops(head)


@stand_in
def test_check__refuses_a_neck_of_modulated_convolutions() -> None:
    with pytest.raises(InstallError, match='ModulatedDeformConv2d'):
        check_compiled_ops(DyHead(16, 16, num_blocks=1))


def test_check__takes_what_runs_without() -> None:
    check_compiled_ops(resnet())
    align = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
    check_compiled_ops(
        MODELS.build(
            dict(type='SingleRoIExtractor', roi_layer=align, out_channels=8, featmap_strides=[4])
        )
    )


def test_check__takes_everything_where_mmcv_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, 'mmcv_ext_is_stand_in', lambda: False)
    check_compiled_ops(nn.Sequential(DeformConv2d(4, 4, 3)))


def test_missing_ops__names_each_layer() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), DeformConv2d(4, 4, 3), DeformConv2d(4, 4, 3))
    assert list(missing_ops(model)) == [('1', 'DeformConv2d'), ('2', 'DeformConv2d')]
