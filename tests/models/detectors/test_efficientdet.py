import shutil
from typing import Any

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError
from effdet_plugin.models import EfficientDet
from effdet_plugin.models.detectors import efficientdet
from support import REPOSITORY, random_boxes

SIZE = (64, 64)


def build(
    backbone: dict[str, Any] | None = None,
    neck: dict[str, Any] | None = None,
    bbox_head: dict[str, Any] | None = None,
    **settings: Any,
) -> EfficientDet:
    """The smallest whole network: three cells of eight channels on Lite0."""
    init_default_scope('mmdet')  # mmengine builds the data preprocessor
    detector: EfficientDet = MODELS.build(
        dict(
            type='EfficientDet',
            data_preprocessor=dict(type='EfficientDetDataPreprocessor'),
            backbone=dict(
                type='TimmBackbone', model_name='tf_efficientnet_lite0', **(backbone or {})
            ),
            neck=neck
            or dict(type='BiFPN', in_channels=[40, 112, 320], out_channels=8, num_cells=1),
            bbox_head=bbox_head
            or dict(type='EfficientDetHead', num_classes=3, in_channels=8, stacked_convs=1),
            **settings,
        )
    )
    return detector


def batch(*counts: int) -> dict[str, Any]:
    samples = []
    for image, count in enumerate(counts):
        sample = DetDataSample(
            metainfo={'img_shape': SIZE, 'ori_shape': (32, 64), 'scale_factor': (1.0, 2.0)}
        )
        sample.gt_instances = InstanceData(
            bboxes=random_boxes(count, SIZE, image), labels=torch.arange(count) % 3
        )
        samples.append(sample)
    images = torch.randint(0, 256, (len(counts), 3, *SIZE), dtype=torch.uint8)
    return {'inputs': images, 'data_samples': samples}


@pytest.mark.parametrize('counts', [(2, 0), (0, 0), (1,)])
def test_loss__every_parameter_has_a_finite_gradient(counts: tuple[int, ...]) -> None:
    detector = build().train()
    data = detector.data_preprocessor(batch(*counts), training=True)
    losses = detector(**data, mode='loss')
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for p in detector.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_predict__samples_with_instances() -> None:
    detector = build().eval()
    with torch.no_grad():
        (found,) = detector.test_step(batch(0))
        data = detector.data_preprocessor(batch(0))
        logits, deltas = detector(data['inputs'], mode='tensor')
    (plain,) = detector.bbox_head.predict_by_feat(
        logits, deltas, batch_img_metas=[{'batch_input_shape': SIZE}]
    )
    assert len(found.pred_instances) > 0
    assert found.pred_instances.bboxes.shape == plain.bboxes.shape


def test_with_cp__reaches_backbone_neck_and_head() -> None:
    detector = build(with_cp=True)
    assert detector.backbone.with_cp
    assert detector.neck.with_cp
    assert detector.bbox_head.with_cp
    assert not build().neck.with_cp


FPN = dict(
    type='FPN', in_channels=[40, 112, 320], out_channels=8, num_outs=5, add_extra_convs='on_output'
)
RETINA = dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)


class Wide(ResNet):
    """Hands on what it does not know, as mmdet's ResNeXt does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(depth=18, **kwargs)


def test_with_cp__of_the_backbone_alone_where_the_neck_has_none() -> None:
    detector = build(neck=FPN, with_cp=True)
    assert detector.backbone.with_cp
    assert not hasattr(detector.neck, 'with_cp')
    losses = detector(**detector.data_preprocessor(batch(1), training=True), mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())


def test_with_cp__reaches_an_argument_of_a_base_class() -> None:
    neck = {**FPN, 'in_channels': [128, 256, 512]}
    parts = dict(neck=neck, bbox_head=RETINA, with_cp=True)
    detector = EfficientDet(dict(type=Wide, out_indices=(1, 2, 3)), **parts)
    assert detector.backbone.with_cp


def test_with_cp__refused_where_nothing_has_it() -> None:
    with pytest.raises(ConfigError, match='with_cp: none of SSDVGG, FPN, RetinaHead'):
        EfficientDet(dict(type='SSDVGG', depth=11), FPN, RETINA, with_cp=True)
    with pytest.raises(KeyError, match='NoSuchNet'):
        EfficientDet(dict(type='NoSuchNet'), FPN, RETINA, with_cp=True)


def test_channels_last__same_outputs_in_another_order() -> None:
    plain, last = build().eval(), build(channels_last=True).eval()
    last.load_state_dict(plain.state_dict())
    assert (
        last.neck.cells[0]
        .nodes[0]
        .conv.pointwise.weight.is_contiguous(memory_format=torch.channels_last)
    )
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        own, expected = last.extract_feat(images), plain.extract_feat(images)
    assert own[0].is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(own, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_memory_order__of_the_images_does_not_slip_in() -> None:
    images = torch.randn(2, 3, *SIZE)
    permuted = images.contiguous(memory_format=torch.channels_last)
    detector = build().eval()
    with torch.no_grad():
        own, expected = detector.extract_feat(permuted), detector.extract_feat(images)
    assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


def test_compile__needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(ConfigError, match=r'model.compile.*g\+\+') as error:
        build(compile=True)
    assert '\n' not in str(error.value)


def test_compile__each_part_with_the_given_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(shutil, 'which', lambda name: '/bin/true')
    monkeypatch.setattr(
        torch.nn.Module, 'compile', lambda self, **arguments: calls.append(arguments)
    )
    build(compile=dict(mode='reduce-overhead'))
    assert calls == [{'mode': 'reduce-overhead'}] * 4


def test_compile__what_another_head_has_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(shutil, 'which', lambda name: '/bin/true')
    monkeypatch.setattr(
        torch.nn.Module, 'compile', lambda self: compiled.append(type(self).__name__)
    )
    said: list[str] = []
    monkeypatch.setattr(efficientdet, 'print_log', lambda text, **_: said.append(text))
    build(neck=FPN, bbox_head=RETINA, compile=True)
    assert compiled == ['TimmBackbone', 'FPN']
    assert said == ['Compiled: backbone, neck']


def test_freezing__trains_the_rest() -> None:
    detector = build(backbone=dict(frozen_stages=7, norm_eval=True)).train()
    losses = detector(**detector.data_preprocessor(batch(2)), mode='loss')
    torch.stack(list(losses.values())).sum().backward()
    trained = {name.split('.')[0] for name, p in detector.named_parameters() if p.grad is not None}
    assert trained == {'neck', 'bbox_head'}


@pytest.mark.parametrize(
    ('name', 'momentum'),
    [('custom_coco', 0.1), ('custom_voc', 0.1), ('quickstart', 0.1), ('d0_coco', 0.01)],
)
def test_configs__one_momentum_for_all_bn(name: str, momentum: float) -> None:
    cfg = load(REPOSITORY / 'configs' / 'efficientdet' / f'{name}.py')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 100
    assert {norm.momentum for norm in norms} == {momentum}
