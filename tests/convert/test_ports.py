"""Checkpoints of other PyTorch ports, made of our own tensors by their key maps."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_variables import structure_of
from torch import Tensor

from effdet_plugin.convert import api, convert
from effdet_plugin.convert.coco_ids import NAMES, SLOTS
from effdet_plugin.convert.detect import detect
from effdet_plugin.convert.key_map import KeyMap, apply, invert
from effdet_plugin.convert.key_map_ports import MMDET, MMDET_YXYX, ZYLO117
from effdet_plugin.convert.networks import embed_config, state_shapes
from effdet_plugin.convert.sources import Source
from effdet_plugin.errors import CheckpointError
from effdet_plugin.trained_model import load_trained

D0 = structure_of('d0')
SHAPES = state_shapes(D0)
# Names of their files, and the shapes of D0's: the reference's 709 variables, differently.
KNOWN = {
    ZYLO117.name: {
        'backbone_net.model._conv_stem.conv.weight': (32, 3, 3, 3),
        'backbone_net.model._blocks.0._bn1.running_mean': (32,),
        'backbone_net.model._blocks.0._project_conv.conv.weight': (16, 32, 1, 1),
        'backbone_net.model._blocks.11._expand_conv.conv.weight': (672, 112, 1, 1),
        'backbone_net.model._blocks.15._se_reduce.conv.bias': (48,),
        'bifpn.0.p5_to_p6.1.weight': (64,),
        'bifpn.0.p5_to_p6.0.conv.weight': (64, 320, 1, 1),
        'bifpn.0.p4_down_channel.0.conv.weight': (64, 112, 1, 1),
        'bifpn.0.p5_down_channel_2.1.bias': (64,),
        'bifpn.2.p4_w2': (3,),
        'bifpn.1.conv7_down.pointwise_conv.conv.bias': (64,),
        'classifier.bn_list.4.2.running_var': (64,),
        'regressor.header.pointwise_conv.conv.weight': (36, 64, 1, 1),
    },
    MMDET.name: {
        'backbone.layers.0.conv.weight': (32, 3, 3, 3),
        'backbone.layers.1.0.linear_conv.bn.weight': (16,),
        'backbone.layers.4.3.depthwise_conv.conv.weight': (480, 1, 5, 5),
        'backbone.layers.5.4.linear_conv.conv.weight': (320, 1152, 1, 1),
        'backbone.layers.3.1.se.conv2.conv.bias': (240,),
        'neck.bifpn.0.p5_to_p6.0.down_conv.weight': (64, 320, 1, 1),
        'neck.bifpn.0.p5_to_p6.0.bn.bias': (64,),
        'neck.bifpn.0.p4_level_connection.down_conv.bias': (64,),
        'neck.bifpn.2.p7_w2': (2,),
        'neck.bifpn.1.conv3_up.depthwise_conv.weight': (64, 1, 3, 3),
        'bbox_head.cls_bn_list.2.4.running_var': (64,),
        'bbox_head.reg_header.pointwise_conv.bias': (36,),
        'bbox_head.cls_conv_list.0.pointwise_conv.weight': (64, 64, 1, 1),
    },
}
CFG = """
norm_cfg = dict(type='SyncBN', eps=0.001, momentum=0.01)
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    bbox_head=dict(
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
            ratios=[1.0, 0.5, 2.0], strides=[8, 16, 32, 64, 128], center_offset=0.5),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0])))
"""
YXYX_CFG = CFG.replace("'AnchorG", "'YXYXAnchorG").replace("'DeltaX", "'YXYXDeltaX")


@pytest.fixture(scope='module')
def ours() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) if shape else torch.tensor(3)
        for name, shape in SHAPES.items()
    }


def _theirs(key_map: KeyMap, state: dict[str, Tensor], path: Path, meta: object = None) -> Path:
    content: object = invert(key_map, D0, state)
    torch.save(content if meta is None else {'meta': meta, 'state_dict': content}, path)
    return path


@pytest.mark.parametrize('key_map', [ZYLO117, MMDET], ids=['zylo117', 'mmdet'])
def test_names__are_those_of_the_project(key_map: KeyMap, ours: dict[str, Tensor]) -> None:
    theirs = {name: tuple(value.shape) for name, value in invert(key_map, D0, ours).items()}
    assert len(theirs) == len(ours)
    assert KNOWN[key_map.name].items() <= theirs.items()


@pytest.mark.parametrize(('key_map', 'model'), [(ZYLO117, 'd7x'), (MMDET, 'd3')])
def test_apply__finds_every_tensor(key_map: KeyMap, model: str) -> None:
    structure = structure_of(model)
    state = {n: torch.empty(shape, device='meta') for n, shape in state_shapes(structure).items()}
    theirs = invert(key_map, structure, state)
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    assert detect(key_map, shapes, model) == structure
    again = apply(key_map, structure, state_shapes(structure), shapes, theirs.__getitem__).state
    assert again.keys() == state.keys()


@pytest.mark.parametrize(
    ('key_map', 'meta'),
    [
        (ZYLO117, None),
        (MMDET, {'cfg': CFG}),
        (MMDET_YXYX, {'cfg': YXYX_CFG}),
    ],
    ids=['zylo117', 'mmdet', 'mmdet YXYX'],
)
def test_convert__file(
    key_map: KeyMap, meta: object, ours: dict[str, Tensor], tmp_path: Path
) -> None:
    result = convert(_theirs(key_map, ours, tmp_path / 'x.pth', meta), classes=90)
    assert result.report.format == f'{key_map.name} .pth'
    assert result.report.left_out == result.report.filled == {}
    assert all(torch.equal(result.state_dict[name], value) for name, value in ours.items())
    assert result.meta['pool_type'] == 'max_zero'


def test_orders__by_hand(ours: dict[str, Tensor]) -> None:
    """mmdetection: anchor = 3 * ratio + scale, deltas x, y, w, h; the YXYX form: y, x, h, w."""
    bias = ours['bbox_head.box_tower.predict.pointwise.bias'].reshape(3, 3, 4)  # scale, ratio
    name = 'bbox_head.reg_header.pointwise_conv.bias'
    theirs = invert(MMDET, D0, ours)[name].reshape(9, 4)
    assert torch.equal(theirs[3 * 2 + 1], bias[1, 2])
    theirs = invert(MMDET_YXYX, D0, ours)[name].reshape(9, 4)
    assert torch.equal(theirs[3 * 1 + 2], bias[1, 2][[1, 0, 3, 2]])
    classes = ours['bbox_head.cls_tower.predict.pointwise.bias'].reshape(3, 3, 90)
    theirs = invert(MMDET, D0, ours)['bbox_head.cls_header.pointwise_conv.bias'].reshape(9, 90)
    assert torch.equal(theirs[3 * 2 + 1], classes[1, 2])


def test_zylo117__idle_fusion_weights_of_d6_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = structure_of('d6')
    state = {n: torch.empty(shape, device='meta') for n, shape in state_shapes(structure).items()}
    shapes = {n: tuple(v.shape) for n, v in invert(ZYLO117, structure, state).items()}
    idle = {f'bifpn.{cell}.p5_w1': (2,) for cell in range(8)}
    source = Source(Path('d6.pth'), '', ZYLO117, shapes | idle, lambda name: torch.ones(1), '')
    seen: dict[str, object] = {}

    def see(*args: object) -> None:
        seen.update(structure=args[1], names=args[3])
        raise CheckpointError('seen')

    # Without the 200 MB of values.
    monkeypatch.setattr(api, 'open_source', lambda path, raw: nullcontext(source))
    monkeypatch.setattr(api, 'apply', see)
    with pytest.raises(CheckpointError, match='seen'):
        convert('d6.pth')
    assert seen == {'structure': structure, 'names': shapes}


def test_embedded_config__has_their_habits(ours: dict[str, Tensor], tmp_path: Path) -> None:
    result = convert(_theirs(ZYLO117, ours, tmp_path / 'theirs.pth'))
    embed_config(result.meta)
    result.save(tmp_path / 'ours.pth')
    model = load_trained(None, tmp_path / 'ours.pth', 'cpu').model
    assert model.neck.cells[0].nodes[4].resamples[-1].pool_type == 'max_zero'
    assert np.allclose(model.bbox_head.prior_generator.sides[0][1], (5.6, 2.8))


def test_mmdet__ninety_names_are_coco_slots(ours: dict[str, Tensor], tmp_path: Path) -> None:
    names: list[str | None] = [None] * 90
    for slot, name in zip(SLOTS, NAMES, strict=True):
        names[slot] = name
    meta = {'cfg': CFG, 'dataset_meta': {'classes': names}}
    path = _theirs(MMDET, ours, tmp_path / 'x.pth', meta)
    assert convert(path).meta['dataset_meta']['classes'] == NAMES


def test_mmdet__without_config_and_counters_it_is_of_tensorflow(
    ours: dict[str, Tensor], tmp_path: Path
) -> None:
    theirs = invert(MMDET_YXYX, D0, ours)
    bare = {name: v.double() for name, v in theirs.items() if not name.endswith('_tracked')}
    torch.save({'state_dict': bare}, tmp_path / 'x.pth')
    result = convert(tmp_path / 'x.pth', classes=90)
    name = 'bbox_head.box_tower.predict.pointwise.bias'
    assert torch.equal(result.state_dict[name], ours[name])
    assert 'convert_tf_to_pt' in '\n'.join(result.report.notes)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (CFG.replace('_scale=4', '_scale=8'), 'octave_base_scale=8'),
        (CFG.replace(', center_offset=0.5', ''), 'no center_offset'),
        (CFG.replace('eps=0.001, ', ''), 'no eps'),
        (CFG.replace('123.675', '0.485'), 'mean='),
        (CFG.replace("'DeltaX", "'YXYXDeltaX"), 'but not with YXYXAnchorGenerator'),
        ('model = dict(', 'cannot be read'),
        (CFG + 'neck = dict(conv_bn_act_pattern=True)', 'conv_bn_act_pattern=True'),
        (None, 'carries no config'),
    ],
    ids=['anchors', 'offset', 'eps', 'mean', 'mixed', 'damaged', 'pattern', 'none'],
)
def test_mmdet__a_config_that_does_not_convert(
    cfg: str | None, message: str, ours: dict[str, Tensor], tmp_path: Path
) -> None:
    path = _theirs(MMDET, ours, tmp_path / 'x.pth', cfg and {'cfg': cfg})
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(path)
    assert '\n' not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('key_map', [ZYLO117, MMDET], ids=['zylo117', 'mmdet'])
def test_wrong_keys__are_told(key_map: KeyMap, ours: dict[str, Tensor], tmp_path: Path) -> None:
    theirs = invert(key_map, D0, ours)
    lost = next(name for name in theirs if name.endswith('conv5_down.bn.weight'))
    theirs['bifpn.0.extra' if key_map is ZYLO117 else 'neck.extra'] = theirs.pop(lost)
    torch.save({'state_dict': theirs, 'meta': {'cfg': CFG}}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=f'1 missing: {lost}; 1 without a place: ') as caught:
        convert(tmp_path / 'x.pth')
    assert '\n' not in str(caught.value)
