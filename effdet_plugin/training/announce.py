"""What a training says of itself before its first step, as rows of name, value and reason."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from effdet_plugin.config import resize_mode_of
from effdet_plugin.engine.optim import batches_per_update, has_bfloat16_units
from effdet_plugin.models.backbones.pretrained import is_download, timm_name
from effdet_plugin.own_data import DatasetDescription
from effdet_plugin.training.reporting import size_in_words
from effdet_plugin.training.start_weights import Start

_MOST_NAMES = 12  # classes in a line
_MOST_READ = 5_000  # images whose boxes are counted one by one
_SPLITS = {'train': 'training', 'val': 'validation'}


class Row(NamedTuple):
    """One setting.

    Args:
        name: What it is.
        value: In words.
        why: Where it comes from, or what follows; ''.
    """

    name: str
    value: str
    why: str = ''


def rows_of(
    runner: Runner,
    description: DatasetDescription | None,
    overridden: Sequence[str] = (),
    start: Start | None = None,
) -> list[Row]:
    """Return the rows of a training that is about to take its first step.

    Args:
        runner: With loaders, optimizer and weights.
        description: The own data; None where the config names the data.
        overridden: What the person has set, such as ``train_cfg.max_epochs``.
        start: The weights that were chosen; None where the config names them.
    """
    return [
        _model(runner),
        weights_row(runner.cfg, runner._has_loaded, Path(str(runner._load_from or '')), start),
        *_data(runner, description),
        _classes(runner),
        Row(
            'input',
            size_in_words(runner.cfg.train_dataloader.dataset),
            resize_mode_of(runner.cfg.train_dataloader.dataset) or '',
        ),
        *_schedule(runner, overridden),
        Row('device', device_in_words()),
        _precision(runner),
        Row('results', str(runner.work_dir), f'log in {Path(runner.log_dir).name}'),
    ]


def table(rows: Sequence[Row]) -> str:
    """Return rows as text, names and values aligned."""
    width = max(len(row.name) for row in rows)
    return '\n'.join(
        f'  {row.name:<{width}}  {row.value}' + (f' ({row.why})' if row.why else '') for row in rows
    )


def in_time(seconds: float) -> str:
    """Return a duration as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60} min'


def _model(runner: Runner) -> Row:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    total = sum(one.numel() for one in model.parameters())
    frozen = sum(one.numel() for one in model.parameters() if not one.requires_grad)
    config = runner.cfg.model
    parts = [config.get('backbone', {}).get('model_name') or config.get('backbone', {}).get('type')]
    parts += [config.get(part, {}).get('type') for part in ('neck', 'bbox_head')]
    words = f'{config.type}: {", ".join(str(part) for part in parts if part)}'
    return Row('model', words, f'{total:,} parameters' + (f', {frozen:,} frozen' if frozen else ''))


def weights_row(cfg: Config, has_loaded: bool, loaded: Path, start: Start | None = None) -> Row:
    """Return which weights a training starts from, and why these.

    Args:
        cfg: Of the training.
        has_loaded: Whether a checkpoint was loaded.
        loaded: It.
        start: The weights that were chosen; None where the config names them.
    """
    if has_loaded and cfg.get('resume'):
        return Row('weights', str(loaded), 'the run is resumed')
    if start is not None:
        return Row('weights', start.value, start.why)
    if has_loaded:
        return Row('weights', str(loaded), 'load_from of the config')
    backbone = cfg.model.get('backbone') or {}
    source = backbone.get('pretrained') or False
    why = 'the backbone; neck and head start at random'
    if is_download(source):
        name = timm_name(str(backbone.get('model_name')), source)
        return Row('weights', f"ImageNet, timm's download of {name}", why)
    if source == 'package':
        return Row('weights', 'ImageNet, of an installed package', f'{why}; no download is needed')
    if named := source or (backbone.get('init_cfg') or {}).get('checkpoint'):
        return Row('weights', str(named), why)
    return Row('weights', 'random', 'the config names none: that takes many more epochs')


def _data(runner: Runner, description: DatasetDescription | None) -> Iterator[Row]:
    """Yield a row for each split."""
    loaders = {'train': runner.train_dataloader}
    if runner.val_loop is not None:
        loaders['val'] = runner.val_dataloader
    for name, loader in loaders.items():
        images = len(loader.dataset)
        split = description.splits.get(name) if description else None
        boxes = f'{split.num_targets:,}' if split else count_boxes(loader.dataset)
        yield Row(_SPLITS[name], f'{images:,} images, {boxes} boxes')
    if 'val' not in loaders:
        yield Row('validation', 'none', 'nothing is evaluated; the last checkpoint is the result')


def count_boxes(dataset: Any) -> str:
    """Return the number of targets of a dataset; of a large one about, from every n-th image."""
    step = -(-len(dataset) // _MOST_READ) or 1
    places = range(0, len(dataset), step)
    count = targets_in(dataset, places)
    if step == 1:
        return f'{count:,}'
    return f'about {round(count * len(dataset) / len(places) / 1000) * 1000:,}'


def targets_in(dataset: Any, places: Iterable[int]) -> int:
    """Return the number of targets in some images: boxes without ``ignore_flag``."""
    return sum(
        not one.get('ignore_flag', 0)
        for place in places
        for one in dataset.get_data_info(place).get('instances', [])
    )


def _classes(runner: Runner) -> Row:
    names = [*runner.train_dataloader.dataset.metainfo.get('classes', ())]
    shown = ', '.join(map(str, names[:_MOST_NAMES]))
    return Row('classes', f'{len(names)}', shown + (', ...' if len(names) > _MOST_NAMES else ''))


def _schedule(runner: Runner, overridden: Sequence[str]) -> Iterator[Row]:
    loader, loop, cfg = runner.train_dataloader, runner.train_loop, runner.cfg
    done = f', {runner.epoch} of them done' if runner.epoch else ''
    if hasattr(loop, 'max_epochs') and 'max_epochs' in cfg.train_cfg:
        steps = f'{len(loader):,} steps each, {loop.max_iters:,} in all{done}'
        yield Row('epochs', f'{loop.max_epochs}', _why('train_cfg.max_epochs', overridden, steps))
    else:
        yield Row('steps', f'{loop.max_iters:,}')
    world, accumulated = get_world_size(), batches_per_update(runner.optim_wrapper)
    size = loader.batch_size or cfg.train_dataloader.get('batch_size', 1)
    factors = [f'{size} images a step']
    factors += [f'{world} processes'] if world > 1 else []
    factors += [f'{accumulated} steps an update'] if accumulated > 1 else []
    key = 'train_dataloader.batch_size'
    words = ' x '.join(factors) if len(factors) > 1 else ''
    yield Row('batch', f'{size * world * accumulated}', _why(key, overridden, words))
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is not None:
        group = optimizer.param_groups[0]
        rate = group.get('initial_lr', group['lr'])
        schedulers = cfg.get('param_scheduler') or [{}]
        scheduler = schedulers[0] if isinstance(schedulers, list) else schedulers
        warm_up = scheduler.get('warmup_epochs')
        words = type(optimizer).__name__
        if warm_up:
            words += f', {warm_up:g} epochs of warm-up, then {scheduler.get("decay", "its decay")}'
        yield Row('rate', f'{rate:.3g}', _why('optim_wrapper.optimizer.lr', overridden, words))


def _why(key: str, overridden: Sequence[str], words: str) -> str:
    return '; '.join(filter(None, (words, 'as asked for' if key in overridden else '')))


def _precision(runner: Runner) -> Row:
    """Return precision and memory order of the network, and what would be faster on this CPU."""
    wrapper = runner.optim_wrapper
    precision = str(getattr(wrapper, 'cast_dtype', torch.float32)).removeprefix('torch.')
    order = ', channels_last' if runner.cfg.model.get('channels_last') else ''
    why = ''
    if get_device() == 'cpu' and has_bfloat16_units():
        is_float32 = precision == 'float32'
        why = '--amp is faster' if is_float32 else '--no-amp trains in float32'
        why = f'this CPU has bfloat16 units: {why}'
    return Row('precision', precision + order, why)


def device_in_words() -> str:
    """Return the device that is trained on, with the number of processes."""
    kind, world = get_device(), get_world_size()
    threads = torch.get_num_threads()
    name = f'{threads} thread{"s" * (threads != 1)}'
    if kind == 'cuda':
        name = torch.cuda.get_device_name()
    many = f', {world} processes' if world > 1 else ''
    return f'{kind}: {name}{many}' if kind in ('cuda', 'cpu') else f'{kind}{many}'
