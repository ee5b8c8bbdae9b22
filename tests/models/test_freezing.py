"""What is frozen does not move, BN statistics included; what matches nothing is refused."""

import re
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError
from effdet_plugin.models import EfficientDet
from support import REPOSITORY

LITE0 = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
SIZE = (128, 128)


def build(**kwargs: Any) -> EfficientDet:
    init_default_scope('mmdet')
    model = load(LITE0, options={'model.backbone.pretrained': False}).model
    model.pop('type')
    model.neck.num_cells = model.bbox_head.stacked_convs = 1
    return EfficientDet(**model, **kwargs).train()


def batch() -> dict[str, list[Any]]:
    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE))
        boxes = torch.tensor([[10.0, 20, 60, 60]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1]))
        samples.append(sample)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def train(model: nn.Module, steps: int = 2) -> None:
    cfg = load(LITE0).optim_wrapper
    optimizer = build_optim_wrapper(model, cfg)
    for _ in range(steps):
        model.train()  # as every epoch does
        model.train_step(batch(), optimizer)


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_freeze__a_frozen_backbone_changes_no_tensor() -> None:
    model = build(freeze='^backbone')
    before = copy_of(model)
    train(model)
    moved = changed(before, model)
    assert not {name for name in moved if name.startswith('backbone')}
    assert {name for name in before if name.endswith('pointwise.weight')} <= moved


def test_freeze__statistics_may_go_on_as_in_the_reference() -> None:
    model = build(freeze='^(backbone|neck)', freeze_norm_statistics=False)
    before = copy_of(model)
    train(model)
    moved = {name for name in changed(before, model) if not name.startswith('bbox_head')}
    assert moved == {
        name
        for name in before
        if name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
        and not name.startswith('bbox_head')
    }


def test_freeze__part_of_the_names() -> None:
    model = build(freeze=r'blocks\.[01]\.|conv_stem')
    before = copy_of(model)
    train(model)
    moved = changed(before, model)
    assert not {name for name in moved if 'blocks.0' in name or 'blocks.1' in name}
    assert 'backbone.model.blocks.2.0.bn1.running_mean' in moved
    # The norm behind the stem is not named, so it goes on.
    assert 'backbone.model.bn1.running_mean' in moved


def test_freeze__the_expressions_of_the_docs() -> None:
    text = (REPOSITORY / 'docs' / 'fine_tune.md').read_text()
    (pattern,) = re.findall(r"model\.freeze='(conv_stem.*)'\"  # stem and first four stages", text)
    frozen = {name for name, p in build(freeze=pattern).named_parameters() if not p.requires_grad}
    stages = {name.split('.')[3] for name in frozen if '.blocks.' in name}
    assert stages == {'0', '1', '2', '3'}
    assert {name for name in frozen if '.blocks.' not in name} == {
        f'backbone.model.{name}' for name in ('conv_stem.weight', 'bn1.weight', 'bn1.bias')
    }


def test_freeze__lasts_through_a_conversion_to_synchronised_bn() -> None:
    model = convert_sync_batchnorm(build(freeze='^backbone')).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert all(m.training for m in model.neck.modules() if isinstance(m, nn.SyncBatchNorm))


@pytest.mark.parametrize(
    ('pattern', 'words'),
    [
        ('bakbone', r'bakbone.*: backbone'),
        ('(efficientnet|fpn_cells|resample_p6)', r'fpn_cells.*: .*neck'),
        ('zzz', r'zzz.*: backbone, bbox_head, neck'),
        ('.*', 'all parameters'),
        ('(backbone', 'no regular expression'),
    ],
)
def test_freeze__refused(pattern: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(freeze=pattern)
