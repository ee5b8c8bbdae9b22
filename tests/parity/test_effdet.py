"""Against effdet from PyPI: its random weights through our converter, equal logits and boxes.

Tolerance 2e-5 of the largest output: two float32 runs of the reference differ by up to 4.3e-6.
"""

from pathlib import Path

import pytest
import torch
from ladder import swap_channels
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import support
from effdet_plugin.convert import convert
from effdet_plugin.convert.networks import MODELS as NETWORKS
from effdet_plugin.ops.shapes import NoRandomValues

effdet = pytest.importorskip('effdet', reason='compares with effdet from PyPI: pip install effdet')

LIMIT = 2e-5
# (height, width), small: D6 and larger have 8 cells and 384 channels. Level 8 needs 256 pixels.
SIZES = {'d0': (257, 320), 'lite0': (320, 320), 'd7x': (256, 320)}
SMALL = (128, 192)
FAST = ('d0', 'lite0')
CASES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name) for name in NETWORKS
]


def random_effdet(model: str, size: tuple[int, int]) -> nn.Module:
    """effdet's model with random weights, and the BN statistics that belong to them.

    Without those the sums of D6 and larger grow to 1e6, and a part of the network decides alone.
    """
    torch.manual_seed(0)
    network = effdet.create_model(
        f'tf_efficientdet_{model}', pretrained=False, pretrained_backbone=False, image_size=size
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.momentum = 1.0
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.1)
    for name, parameter in network.named_parameters():
        if name.endswith('edge_weights'):
            nn.init.uniform_(parameter, -0.25, 1.75)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, *size))
    return network.eval()


def our_network(model: str, state: dict[str, Tensor]) -> nn.Module:
    config = Config.fromfile(support.REPOSITORY / f'configs/efficientdet/{model}_coco.py')
    config.model.backbone.pretrained = False
    config.model.bbox_head.num_classes = 90
    init_default_scope('mmdet')
    with NoRandomValues():
        detector: nn.Module = MODELS.build(config.model)
    detector.load_state_dict(state)
    return detector.eval()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize('model', CASES)
def test_effdet__logits_and_both_ways(model: str, tmp_path: Path) -> None:
    size = SIZES.get(model, SMALL)
    theirs = random_effdet(model, size)
    torch.save(theirs.state_dict(), tmp_path / 'effdet.pth')
    converted = convert(tmp_path / 'effdet.pth', model, 90)
    converted.save(tmp_path / 'ours.pth')
    back = convert(tmp_path / 'ours.pth', model, 90, to='effdet').state_dict
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.state_dict().items())

    ours = our_network(model, converted.state_dict)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        logits, codes = ours(images)
        their_logits, their_codes = theirs(images)
    found = [relative(mine, their) for mine, their in zip(logits, their_logits, strict=True)]
    found += [
        relative(swap_channels(mine), their) for mine, their in zip(codes, their_codes, strict=True)
    ]
    assert max(found) < LIMIT, found
