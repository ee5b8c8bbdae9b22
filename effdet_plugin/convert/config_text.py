"""The config that belongs to converted weights, as the text that a checkpoint carries."""

from pathlib import Path

from mmengine import Config

from effdet_plugin.convert.api import Converted

# (width, height) factors of the anchors in older ports: 1.4 and 0.7 for the square root of 2.
OLD_PAIRS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))


def config_name(meta_model: str, source: str) -> str:
    """File name of the config: of the release (``d3-640``) where it is one, else of the network."""
    is_release = source.startswith(f'{meta_model}-') and '.' not in source
    return f'{(source if is_release else meta_model).replace("-", "_")}_coco.py'


def embed_config(converted: Converted, folder: Path) -> Path | None:
    """Put the config of a model into its checkpoint, with its classes, anchors and padding.

    mmdet's inferencer then needs no config file.

    Args:
        converted: gets ``meta['cfg']``.
        folder: of the configs; nothing happens where the model has none there.
    """
    meta = converted.meta
    path = folder / config_name(meta['model'], meta['source'])
    if not path.is_file():
        return None
    config = Config.fromfile(path)
    config.num_classes = len(meta['dataset_meta']['classes'])
    config.model.bbox_head.num_classes = config.num_classes
    if meta['anchor_aspects'] != 'sqrt2':
        config.model.bbox_head.anchor_generator.aspect_ratios = [list(pair) for pair in OLD_PAIRS]
    if meta['padding'] == 'symmetric':
        backbone = config.model.backbone
        backbone.model_name = backbone.model_name.removeprefix('tf_')
    meta['cfg'] = config.pretty_text
    return path
