"""What a training starts from: COCO weights, ImageNet weights, a checkpoint, or random numbers.

The choice is written into the config as ``load_from`` and ``model.backbone.pretrained``, as paths
of files that are there: a run of the dumped config looks for nothing.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import all_gather_object

from effdet_plugin.convert.api import convert, release_name
from effdet_plugin.convert.key_map_pytorch import OWN
from effdet_plugin.convert.open_source import open_source
from effdet_plugin.convert.released import coco_weights, release_for
from effdet_plugin.download import WEB, cache_dir, local_path, make_once
from effdet_plugin.engine.resume import CONFIG, Resumable
from effdet_plugin.engine.runner import AUTO
from effdet_plugin.errors import CheckpointError, ConfigError, UserError
from effdet_plugin.files import read_json
from effdet_plugin.models.backbones.pretrained import (
    downloaded,
    has_package,
    is_download,
    timm_name,
)

COCO, IMAGENET, NONE = 'coco', 'imagenet', 'none'
_PACKAGE, _BACKBONE = 'package', 'TimmBackbone'
_KEYS = ('load_from', 'model.init_cfg', 'model.backbone.pretrained', 'model.backbone.init_cfg')
_BACKBONE_ONLY = 'the backbone; neck and head start at random'


class Start(NamedTuple):
    """The weights that a training starts from.

    Args:
        kind: ``'coco'``, ``'imagenet'``, ``'none'`` or ``'file'``.
        value: In words.
        why: Which file, and why not better ones.
        load_from: Checkpoint of a detector, for the config.
        pretrained: Of the backbone, for the config.
    """

    kind: str
    value: str
    why: str
    load_from: str | None = None
    pretrained: bool | str = False


def check_weights(asked: str | None, given: Collection[str]) -> None:
    """Refuse what no training can start from, before the data are read.

    Args:
        asked: As ``--weights`` has it; None: nothing is asked for.
        given: Paths in the config that the person has set.

    Raises:
        ConfigError: It is neither a kind of weights nor a checkpoint, or another one is named.
    """
    if asked is None:
        return
    others = [key for key in given if key.startswith(_KEYS)]
    if others:
        raise ConfigError(f'give --weights or --cfg-options {others[0]}, not both')
    if asked in (COCO, IMAGENET, NONE) or asked.startswith(WEB) or release_name(asked):
        return
    path = Path(asked).expanduser()
    # A TensorFlow checkpoint is named by what its files begin with.
    if not asked or (not path.exists() and not path.with_name(f'{path.name}.index').exists()):
        raise ConfigError(
            f'--weights {asked}: no such file; give coco, imagenet, none, or a checkpoint'
        )


def start_for(
    cfg: Config,
    asked: str | None,
    given: Collection[str] = (),
    resumed: Resumable | None = None,
    *,
    network: bool = True,
) -> Start | None:
    """Choose the weights of a training, have them here, and write them into its config.

    Args:
        cfg: Changed in place.
        asked: As ``--weights`` has it; None takes the best that can be had, unless the config or
            the person names some.
        given: Paths in the config that the person has set.
        resumed: The checkpoint of a run that continues: that run's start is kept.
        network: False for a dry run, which takes what is on this machine.

    Returns:
        None where nothing was chosen; the config is as it was.

    Raises:
        ConfigError: There are no COCO weights of this network, and they are asked for.
        CheckpointError: What is asked for cannot be had or read.
    """
    if asked is None and not _is_open(cfg, given):
        return None
    if resumed is not None or cfg.get('resume', False) not in (False, AUTO):
        _keep_start(cfg)
        return None
    start = _choose(cfg, asked, network)
    if start is not None:
        _set_start(cfg, start)
    return start


def _is_open(cfg: Config, given: Collection[str]) -> bool:
    """Whether neither the config nor a person names the weights that a training starts from."""
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    if cfg.get('load_from') or any(key.startswith(_KEYS) for key in given):
        return False
    has_default = is_download(backbone.get('pretrained')) or backbone.get('pretrained') == _PACKAGE
    is_ours = backbone.get('type') == _BACKBONE
    return is_ours and has_default and not backbone.get('init_cfg') and not model.get('init_cfg')


def _choose(cfg: Config, asked: str | None, network: bool) -> Start | None:
    if asked is None:
        return _best(cfg, network)
    if asked == NONE:
        return Start(NONE, 'random', 'as asked for: that takes many more epochs')
    try:
        if asked == COCO:
            return _coco(cfg, network)
        if asked == IMAGENET:
            return _imagenet(cfg, network)
        if release := release_name(asked):
            return _released(release, network)
    except CheckpointError as error:
        if network:
            raise CheckpointError(
                f'--weights {asked}: cannot be had: {error}; check the network, give the path of '
                'a checkpoint, or leave the option out to start from what can be had'
            ) from error
        return None
    if asked.startswith(WEB) and not network:
        return None
    path = _ours(cfg, local_path(asked).absolute())
    return Start('file', str(path), 'as asked for', str(path))


def _keep_start(cfg: Config) -> None:
    """Write into the config of a run that is resumed what the run has started from."""
    try:
        before: Any = read_json(Path(cfg.work_dir) / CONFIG)
        recorded = before['load_from'], before['model']['backbone']['pretrained']
    except (UserError, LookupError, TypeError):
        return  # of another version, or not there; no weights but the checkpoint's are read
    cfg.model.backbone.pretrained = recorded[1]
    if cfg.resume == AUTO:
        cfg.load_from = recorded[0]


def check_agreement(start: Start | None) -> None:
    """Refuse to train where the processes start from different weights: each loads its own.

    Raises:
        CheckpointError: They do; one has lost its network, or its files.
    """
    kinds = set(all_gather_object('' if start is None else start.kind))
    if len(kinds) > 1:
        found = ', '.join(sorted(kinds))
        raise CheckpointError(
            f'the processes have found different weights ({found}): try again, or name them by '
            '--weights'
        )


def _set_start(cfg: Config, start: Start) -> None:
    cfg.load_from = start.load_from
    backbone = cfg.model.get('backbone') or {}
    if backbone.get('type') == _BACKBONE:
        backbone['pretrained'] = start.pretrained
    for node in (cfg.model, backbone) if start.kind == NONE else ():
        if (node.get('init_cfg') or {}).get('type') == 'Pretrained':
            node['init_cfg'] = None


def _best(cfg: Config, network: bool) -> Start | None:
    reasons: list[str] = []
    sources: dict[str, Callable[[Config, bool], Start]] = {'COCO': _coco, 'ImageNet': _imagenet}
    for name, find in sources.items():
        try:
            start = find(cfg, network)
        except (CheckpointError, ConfigError) as error:
            reasons.append(f'{name} weights cannot be had ({error})')
        else:
            return start._replace(why='; '.join([start.why, *reasons]))
    if not network:
        return None
    return Start(NONE, 'random', '; '.join(['that takes many more epochs', *reasons]))


def _coco(cfg: Config, network: bool) -> Start:
    release = release_for(cfg)
    if release is None:
        raise ConfigError('none of the released checkpoints has this network')
    return _released(release, network)


def _released(release: str, network: bool) -> Start:
    path = coco_weights(release, network=network)
    return Start(COCO, f"COCO, Google's {release}", str(path), str(path))


def _imagenet(cfg: Config, network: bool) -> Start:
    backbone = cfg.model.get('backbone') or {}
    source = backbone.get('pretrained') or True
    name = str(backbone.get('model_name'))
    if backbone.get('type') != _BACKBONE:
        raise ConfigError(f'{backbone.get("type")} is no TimmBackbone, whose weights are known')
    if has_package(name):
        why = f'{_BACKBONE_ONLY}; no download is needed'
        return Start(IMAGENET, 'ImageNet, of an installed package', why, None, _PACKAGE)
    source = source if is_download(source) else True
    path = downloaded(name, source, network=network)
    value = f"ImageNet, timm's {timm_name(name, source)}"
    return Start(IMAGENET, value, f'{_BACKBONE_ONLY}; {path}', None, str(path))


def _ours(cfg: Config, path: Path) -> Path:
    """Return a checkpoint of ours: the file itself, or its weights converted and kept."""
    if cfg.model.get('type') != 'EfficientDet':  # the converter knows no other detector
        return path
    with open_source(path) as source:
        if source.key_map is OWN:
            return path
    converted = convert(path)
    folder = cache_dir() / f'converted-{converted.meta["sha256"][:16]}'

    def make() -> Path:
        target = folder / f'{path.name.partition(".")[0]}.pth'
        converted.save(target)
        return target

    return make_once(folder, make)
