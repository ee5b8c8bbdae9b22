"""Put another of our networks into a config of own data; the recipe of the training stays."""

import copy

from mmengine.config import Config, ConfigDict

from effdet_plugin.config.image_size import set_image_size
from effdet_plugin.errors import ConfigError
from effdet_plugin.shipped_configs import path

# Settings of a network that belong to the training: long trainings have slower statistics.
_RECIPE = ('channels_last', 'freeze')
_RECIPE_OF_PARTS = ('norm_momentum',)
_PARTS = ('backbone', 'neck', 'bbox_head')
_IN_PACKAGES = ('lite0', 'lite1', 'lite2')  # whose ImageNet weights a pip package has


def use_network(cfg: Config, name: str) -> None:
    """Replace network and input size by those of another of our configs.

    Momentum of the batch norms, memory format and class count stay. The backbone starts from
    ImageNet weights: those of a pip package where there is one, else timm's download.

    Args:
        cfg: A config such as ``custom_coco``, changed in place.
        name: ``'lite0'`` ... ``'lite4'``, ``'d0'`` ... ``'d7x'``.

    Raises:
        ConfigError: There is no such network, or the config is not of an EfficientDet.
    """
    other = Config.fromfile(path(f'{name}_coco'))
    old = cfg.get('model') or ConfigDict()
    new = copy.deepcopy(other.model)
    if old.get('type') != new.type:
        raise ConfigError(f'{cfg.filename}: {old.get("type")} is no {new.type} to put {name} into')
    for key in _RECIPE:
        if key in old:
            new[key] = old[key]
    for part in _PARTS:
        for key in _RECIPE_OF_PARTS:
            if key in old[part]:
                new[part][key] = old[part][key]
    if name in _IN_PACKAGES:
        new.backbone.pretrained = 'package'
    new.bbox_head.num_classes = old.bbox_head.num_classes
    cfg.model = new
    set_image_size(cfg, tuple(other.image_size))
