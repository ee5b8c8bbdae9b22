import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from effdet_plugin.errors import ConfigError
from effdet_plugin.models import TimmBackbone
from effdet_plugin.models.backbones.timm_backbone import _split as split_network

LITE0 = 'tf_efficientnet_lite0'
SWIN: dict[str, Any] = dict(
    model_name='swin_tiny_patch4_window7_224',
    out_indices=(1, 2),
    model_kwargs=dict(embed_dim=24, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), img_size=112),
)


def norms(module: nn.Module) -> list[_BatchNorm]:
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


@pytest.mark.parametrize(
    ('settings', 'size'),
    [
        (dict(model_name=LITE0), (70, 101)),
        (dict(model_name='resnet18', out_indices=(1, 2, 3, 4)), (64, 96)),
        (dict(model_name='mobilenetv3_small_050', out_indices=(0, 4)), (64, 64)),
        (SWIN, (112, 112)),  # its own maps are NHWC
    ],
    ids=['lite0', 'resnet', 'mobilenet', 'swin'],
)
def test_forward__maps_are_what_is_declared(settings: Any, size: tuple[int, int]) -> None:
    backbone = TimmBackbone(**settings).eval()
    maps = backbone(torch.randn(1, 3, *size))
    assert [x.shape[1] for x in maps] == backbone.out_channels
    expected = [tuple(-(-side // stride) for side in size) for stride in backbone.strides]
    assert [tuple(x.shape[2:]) for x in maps] == expected


def test_constants__set_for_every_bn() -> None:
    backbone = TimmBackbone(LITE0, norm_eps=0.5, norm_momentum=0.25)
    assert {(norm.eps, norm.momentum) for norm in norms(backbone)} == {(0.5, 0.25)}
    assert {(norm.eps, norm.momentum) for norm in norms(TimmBackbone(LITE0))} == {(1e-3, 0.1)}


@pytest.mark.parametrize('momentum', [0, -0.1, 1.5])
def test_constants__momentum_outside_0_to_1_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match=f'norm_momentum={momentum} '):
        TimmBackbone(LITE0, norm_momentum=momentum)


@pytest.mark.parametrize(
    ('model_name', 'stage', 'free'),
    [
        (LITE0, 0, 'blocks.0.0.conv_dw.weight'),
        (LITE0, 2, 'blocks.2.0.conv_pw.weight'),
        ('resnet18', 0, 'layer1.0.conv1.weight'),
        ('resnet18', 1, 'layer2.0.conv1.weight'),
        ('convnext_atto', 1, 'stages_1.downsample.0.weight'),
        ('regnetx_002', 0, 's1.b1.conv1.conv.weight'),
        ('densenet121', 0, 'features_denseblock1.denselayer1.norm1.weight'),
        ('densenet121', 1, 'features_denseblock2.denselayer1.norm1.weight'),
    ],
)
def test_frozen_stages__no_gradients_and_still_statistics(
    model_name: str, stage: int, free: str
) -> None:
    backbone = TimmBackbone(model_name, out_indices=(3,), frozen_stages=stage).train()
    parameters = dict(backbone.model.named_parameters())
    names = list(parameters)
    first = names.index(free)
    assert 0 < first < len(names)
    assert not any(parameters[name].requires_grad for name in names[:first])
    assert all(parameters[name].requires_grad for name in names[first:])
    frozen = {id(parameters[name]) for name in names[:first]}
    assert all(norm.training == (id(norm.weight) not in frozen) for norm in norms(backbone))


def test_frozen_stages__none_and_too_many() -> None:
    assert all(p.requires_grad for p in TimmBackbone(LITE0).parameters())
    with pytest.raises(ConfigError, match=r'frozen_stages=8.* has 7 stages'):
        TimmBackbone(LITE0, frozen_stages=8)


@pytest.mark.parametrize(
    ('model_name', 'out_indices'),
    [
        ('hrnet_w18_small', (1,)),  # transition1 is no stage
        ('vgg11', (1,)),  # single layers
        ('vit_tiny_patch16_224', (1,)),  # one child: the network
        ('dpn68', (1,)),  # all blocks of all stages
    ],
)
def test_frozen_stages__refuses_what_is_no_run_of_stages(
    model_name: str, out_indices: tuple[int, ...]
) -> None:
    words = f'frozen_stages=0: {model_name} is not.*freeze='
    with torch.device('meta'):  # no numbers: VGG has a hundred million
        TimmBackbone(model_name, out_indices)
        with pytest.raises(ConfigError, match=words) as error:
            TimmBackbone(model_name, out_indices, frozen_stages=0)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('model_name', 'out_indices', 'stages'),
    [
        ('resnet50d', (1,), [['layer1']]),  # conv1 has parts and a number, too
        (
            'efficientvit_m0',
            (1, 2),
            [['stages_0'], ['stages_1'], ['stages_2']],
        ),  # patch_embed_conv1
        (
            'mobilevit_xxs',
            (3, 4),
            [*([f'stages_{i}'] for i in range(4)), ['stages_4', 'final_conv']],
        ),
    ],
)
def test_split__every_child_once_and_in_order(
    model_name: str, out_indices: tuple[int, ...], stages: list[list[str]]
) -> None:
    network = TimmBackbone(model_name, out_indices).model
    stem, found = split_network(network)
    names = {id(module): name for name, module in network.named_children()}
    assert [[names[id(module)] for module in stage] for stage in found] == stages
    everything = [*stem, *(module for stage in found for module in stage)]
    assert [names[id(module)] for module in everything] == list(names.values())


def test_norm_eval__every_bn_still_while_training() -> None:
    backbone = TimmBackbone(LITE0, norm_eval=True).train()
    assert backbone.training
    assert not any(norm.training for norm in norms(backbone))
    assert all(norm.training for norm in norms(TimmBackbone(LITE0).train()))


def gradients(backbone: TimmBackbone, images: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(3)  # of drop path
    maps = backbone(images)
    torch.stack([x.square().mean() for x in maps]).sum().backward()
    return {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('model_name', [LITE0, 'resnet18', 'mobilenetv3_small_050'])
def test_with_cp__same_gradients_and_statistics(model_name: str) -> None:
    plain = TimmBackbone(model_name, out_indices=(0, 2), drop_path_rate=0.2).train()
    saving = TimmBackbone(model_name, out_indices=(0, 2), drop_path_rate=0.2, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    own, expected = gradients(saving, images), gradients(plain, images)
    assert own.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-6)
    for (name, value), other in zip(
        saving.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, other, msg=name)


def test_with_cp__saves_memory() -> None:
    def saved(with_cp: bool) -> int:
        sizes: list[int] = []

        def count(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        backbone = TimmBackbone(LITE0, with_cp=with_cp).train()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            backbone(torch.randn(1, 3, 64, 64))
        return sum(sizes)

    assert saved(True) < 0.4 * saved(False)


def test_stochastic_depth__as_the_reference_has_it() -> None:
    backbone = TimmBackbone(LITE0, drop_path_rate=0.2)
    blocks = [block for stage in backbone.model.blocks for block in stage]
    rates = {i: getattr(b.drop_path, 'drop_prob', 0.0) for i, b in enumerate(blocks)}
    assert rates == pytest.approx({i: 0.2 * i / 16 for i in range(16)})


def test_initial_values__of_an_efficientnet_are_the_references() -> None:
    model = TimmBackbone('tf_efficientnet_b0').model
    depthwise, pointwise = model.blocks[4][1].conv_dw.weight, model.blocks[5][0].conv_pw.weight
    assert depthwise.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.02)  # out axis is 1
    assert pointwise.std().item() == pytest.approx((2 / pointwise.shape[0]) ** 0.5, rel=0.02)


def test_unknown_network__one_line_with_near_names() -> None:
    with pytest.raises(ConfigError, match=r"model_name='tf_efficientnet_lite9'") as error:
        TimmBackbone('tf_efficientnet_lite9')
    assert '\n' not in str(error.value)
    with pytest.raises(ConfigError, match='out_indices'):
        TimmBackbone(LITE0, out_indices=(2, 9))


def test_init_weights__keeps_what_was_made_with_the_network() -> None:
    backbone = TimmBackbone(LITE0)
    before = copy.deepcopy(backbone.state_dict())
    backbone.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_out_indices__must_ascend() -> None:
    for indices in ((4, 3, 2), (2, 2, 3), ()):
        with pytest.raises(ConfigError, match='they must ascend, each once'):
            TimmBackbone(LITE0, out_indices=indices)


def test_out_indices__beyond_the_network_names_its_maps() -> None:
    with pytest.raises(ConfigError, match=r'its maps, from 0, are 4, 8, 16, 32$') as error:
        TimmBackbone('convnext_atto')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'kwargs'),
    [
        (SWIN['model_name'], dict(embed_dim=24, depths=(1,) * 4, num_heads=(1,) * 4)),
        ('vit_tiny_patch16_224', dict(embed_dim=24)),
    ],
)
def test_size__networks_for_one_size_take_others(name: str, kwargs: Any) -> None:
    backbone = TimmBackbone(name, out_indices=(1, 2), model_kwargs=kwargs).eval()
    for size in ((64, 96), (128, 64)):
        maps = backbone(torch.randn(1, 3, *size))
        expected = [tuple(side // stride for side in size) for stride in backbone.strides]
        assert [tuple(x.shape[2:]) for x in maps] == expected
    fixed = timm.create_model(name, features_only=True, out_indices=(1, 2), **kwargs)
    assert backbone.model.state_dict().keys() == fixed.state_dict().keys()


@pytest.mark.parametrize(
    ('name', 'indices', 'words'),
    [('dla34', (3, 4), 'multiples of 32'), ('levit_128s', (1, 2), 'img_size=')],
)
def test_size__that_does_not_fit_is_one_line(name: str, indices: Any, words: str) -> None:
    backbone = TimmBackbone(name, indices).eval()
    with pytest.raises(ConfigError, match=f'backbone {name}: images of 132x100 .*{words}') as error:
        backbone(torch.randn(1, 3, 100, 132))
    assert '\n' not in str(error.value)


def test_size__other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match='channels'):
        TimmBackbone(LITE0)(torch.randn(1, 4, 64, 64))
