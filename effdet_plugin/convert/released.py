"""Google's COCO weights as a training starts from them: found, converted and kept once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from effdet_plugin.convert.api import RELEASES, convert, fetch_release
from effdet_plugin.convert.networks import config_name, config_path, network_name
from effdet_plugin.download import (
    OFFLINE,
    cache_dir,
    fetch,
    forget,
    is_offline,
    made,
    make_once,
)
from effdet_plugin.errors import CheckpointError

# rwightman/efficientdet-pytorch has the same weights; addresses as its
# effdet/config/model_config.py gives them, each with the start of the file's sha256.
PORTS_URL = 'https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1/'
PORTS = {
    'd0': 'tf_efficientdet_d0_34-f153e0cf.pth',
    'd1': 'tf_efficientdet_d1_40-a30f94af.pth',
    'd2': 'tf_efficientdet_d2_43-8107aa99.pth',
    'd3': 'tf_efficientdet_d3_47-0b525f35.pth',
    'd4': 'tf_efficientdet_d4_49-f56376d9.pth',
    'd5': 'tf_efficientdet_d5_51-c79f9be6.pth',
    'd6': 'tf_efficientdet_d6_52-4eda3773.pth',
    'd7': 'tf_efficientdet_d7_53-6d1d7a95.pth',
    'd7x': 'tf_efficientdet_d7x-f390b87c.pth',
    'd0-advprop': 'tf_efficientdet_d0_ap-d0cdbd0a.pth',
    'd1-advprop': 'tf_efficientdet_d1_ap-7721d075.pth',
    'd2-advprop': 'tf_efficientdet_d2_ap-a2995c19.pth',
    'd3-advprop': 'tf_efficientdet_d3_ap-e4a2feab.pth',
    'd4-advprop': 'tf_efficientdet_d4_ap-f601a5fc.pth',
    'd5-advprop': 'tf_efficientdet_d5_ap-3673ae5d.pth',
    'lite0': 'tf_efficientdet_lite0-dfacfc78.pth',
    'lite1': 'tf_efficientdet_lite1-6dc7ab30.pth',
    'lite2': 'tf_efficientdet_lite2-86c5d55b.pth',
    'lite3': 'tf_efficientdet_lite3-506852cb.pth',
    'lite3x': 'tf_efficientdet_lite3x-8404c57b.pth',
    'lite4': 'tf_efficientdet_lite4-391ddabc.pth',
}
PATIENCE_S = 3.0  # for each server: two of these, and one of ImageNet weights, are tried
# Arguments of the parts that change no shape and no meaning of a weight of the inner layers.
_OF_TRAINING = {
    'norm_momentum', 'with_cp', 'recompute_norm_act', 'survival_prob', 'init_cfg', 'num_classes',
    'anchor_generator', 'bbox_coder', 'assigner', 'loss_cls', 'loss_bbox', 'loss_iou',
    'loss_normalizer', 'normalizer_value', 'mask_zero_targets', 'postprocessor', 'train_cfg',
    'test_cfg',
}  # fmt: skip


def release_for(cfg: Config) -> str | None:
    """Return the release whose network a config has; None if there is none.

    Of several the one with the config's pixels, anchors and input size comes first: D7 is D6 with
    other anchors, and AdvProp weights take pixels from -1 to 1.
    """
    model = cfg.get('model') or {}
    wanted = _network(model)
    if wanted is None:
        return None
    candidates = []
    for name in RELEASES:
        network = network_name(name)
        # Its text, first: to load all of them takes seconds.
        text = config_path(f'{network}_coco').read_text(encoding='utf-8')
        if f"model_name='{wanted[0]}'" in text:
            other = Config.fromfile(config_path(config_name(network, name)))
            if _network(other.model) == wanted:
                candidates.append((name, _likeness(cfg, other)))
    # max takes the first of equals: plain weights come before those of 640 pixels.
    return max(candidates, key=lambda one: one[1], default=(None, ()))[0]


def coco_weights(release: str, *, network: bool = True) -> Path:
    """Return our checkpoint of a release, downloaded from Google or from effdet's copy of it.

    Args:
        release: A key of :data:`RELEASES`.
        network: False only looks for what is kept.

    Raises:
        CheckpointError: It is not kept, and cannot be had; names each server's reason.
    """
    folder = cache_dir() / f'coco-{release}'
    if not network or is_offline():
        if found := made(folder):
            return found
        reason = f'{OFFLINE} is set' if is_offline() else 'no download was tried'
        raise CheckpointError(f'{reason}, and there are none of an earlier training')
    return make_once(folder, lambda: _make(folder, release))


def _make(folder: Path, release: str) -> Path:
    sources: dict[str, Callable[[], Path]] = {
        'google': lambda: fetch_release(release, patience=PATIENCE_S)
    }
    if release in PORTS:
        url = PORTS_URL + PORTS[release]
        sources['effdet'] = lambda: fetch(url, cache_dir(), release, patience=PATIENCE_S)
    reasons = []
    for origin, download in sources.items():
        target = folder / f'{origin}-{release}.pth'
        try:
            _convert(download(), release, target)
            return target
        except CheckpointError as error:
            reasons.append(f'{origin}: {_reason(error)}')
    raise CheckpointError('; '.join(reasons))


def _convert(archive: Path, release: str, target: Path) -> None:
    try:
        converted = convert(archive, release)
    except CheckpointError:
        forget(archive)
        raise
    converted.save(target)


def _reason(error: CheckpointError) -> str:
    """Return a server's or the system's own words where these are the cause."""
    cause = error.__cause__
    code = getattr(cause, 'code', None)
    reason = getattr(cause, 'reason', None) or (cause if isinstance(cause, OSError) else error)
    return f'{code} {reason}' if code else str(getattr(reason, 'strerror', None) or reason)


def _network(model: Any) -> tuple[str, Any, Any] | None:
    """Return what the weights of a model depend on; None if it is no EfficientDet of ours."""
    parts = [model.get(part) or {} for part in ('backbone', 'neck', 'bbox_head')]
    backbone, neck, head = parts
    kinds = [part.get('type') for part in parts]
    if kinds != ['TimmBackbone', 'BiFPN', 'EfficientDetHead'] or backbone.get('model_kwargs'):
        return None
    name = str(backbone.get('model_name')).partition('.')[0]  # without timm's tag of weights
    shapes = [{k: v for k, v in part.items() if k not in _OF_TRAINING} for part in (neck, head)]
    return name, shapes[0], shapes[1]


def _likeness(cfg: Config, other: Config) -> tuple[bool, ...]:
    """Return whether pixels, anchors and input size are equal, in the order of what matters."""
    return (
        cfg.model.get('data_preprocessor') == other.model.data_preprocessor,
        cfg.model.bbox_head.get('anchor_generator') == other.model.bbox_head.anchor_generator,
        cfg.get('image_size') == other.get('image_size'),
    )
