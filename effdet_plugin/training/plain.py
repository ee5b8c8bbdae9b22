"""What most people say of a training, in plain words, as settings of `train`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effdet_plugin.errors import ConfigError
from effdet_plugin.shipped_configs import config_path, is_config, named_configs, nearest
from effdet_plugin.training.batch_size import AUTO
from effdet_plugin.training.settings import TrainSettings

_NETWORKS = '; choose lite0 ... lite4, lite3x, d0 ... d7, d7x, or a config'
OWN_DATA = 'custom_coco'  # the config of a training of own data, if no other is named
_SECONDS = {'s': 1, 'm': 60, 'h': 3600}


def plain_settings(
    config: Path | str | None = None,
    *,
    model: str | None = None,
    data: Path | str | None = None,
    epochs: int | None = None,
    batch_size: int | str | None = None,
    lr: float | None = None,
    freeze: Sequence[str] | None = None,
    name: str | None = None,
    time: str | float | None = None,
    work_dir: Path | str | None = None,
    cfg_options: Sequence[str] | None = None,
    **others: Any,
) -> TrainSettings:
    """Return the settings of a training.

    Args:
        config: Config, or the name of one of ours; None: the one for own data.
        model: A network (``'lite0'``, ``'d0'``), which then replaces that config's; or a config.
        data: Own data, a folder or an annotation file.
        epochs: Number of epochs.
        batch_size: Training images per step and process; ``'auto'``: as many as a GPU takes.
        lr: Learning rate after the warm-up.
        freeze: Parts that are not trained: the first letters of their parameters' names.
        name: Name of the run, which is written to ``work_dirs/NAME``.
        time: Time for all, as ``'30m'`` or in seconds; lowers the number of epochs.
        work_dir: Folder of the run, in place of a name.
        cfg_options: Options of the config, which come after these.
        others: As `TrainSettings` has them.

    Raises:
        ConfigError: Something that cannot be used; names the option.
    """
    file, network = choose_config(config, model, data is not None)
    fits_batch = batch_size == AUTO
    values = {
        '--epochs': ('train_cfg.max_epochs', epochs),
        '--batch-size': ('train_dataloader.batch_size', None if fits_batch else batch_size),
        '--lr': ('optim_wrapper.optimizer.lr', lr),
    }
    options = []
    for option, (key, value) in values.items():
        if isinstance(value, str):
            raise ConfigError(f'{option} {value}: must be a number above 0, or {AUTO}')
        if value is not None and not value > 0:
            raise ConfigError(f'{option} {value}: must be above 0')
        options += [] if value is None else [f'{key}={value}']
    if freeze:
        parts = [freeze] if isinstance(freeze, str) else freeze
        options.append(f"model.freeze='^({'|'.join(map(re.escape, parts))})'")
    folder = Path(work_dir) if work_dir else run_folder(name or network)
    return TrainSettings(
        config=file,
        network=network,
        data=None if data is None else Path(data),
        work_dir=folder,
        cfg_options=[*options, *(cfg_options or ())] or None,
        fits_batch=fits_batch,
        seconds=None if time is None else parse_seconds(time),
        **others,
    )


def choose_config(
    config: Path | str | None, model: str | None, has_data: bool
) -> tuple[Path, str | None]:
    """Return the config of a training, and the network that replaces its own, if one does.

    Raises:
        ConfigError: What is given says too little, or too much.
    """
    if config is None and model is not None and is_config(model):
        config, model = model, None
    if config is None and model is None and not has_data:
        raise ConfigError('nothing to train on: give --data DIR, or a CONFIG such as d0_coco')
    if model is None:
        return config_path(config or OWN_DATA), None
    if config is not None:
        raise ConfigError(f'give {config} or --model {model}, not both: a config has its network')
    if f'{model}_coco' not in named_configs():
        if Path(model).is_file():
            raise ConfigError(
                f'--model {model}: is a file; to train from a checkpoint add '
                f'--weights {model}, or --resume {model} to continue its run'
            )
        raise ConfigError(
            f'--model {model}: neither a network nor a config{nearest(model) or _NETWORKS}'
        )
    return (config_path(OWN_DATA), model) if has_data else (config_path(f'{model}_coco'), None)


def run_folder(name: str | None) -> Path | None:
    """Return ``work_dirs/NAME``; None without a name.

    Raises:
        ConfigError: The name would lead to another folder.
    """
    if name is None:
        return None
    if Path(name).name != name or name in ('', '.', '..'):
        raise ConfigError(f'--name {name}: is no name of a folder; --work-dir takes a path')
    return Path('work_dirs') / name


def parse_seconds(time: str | float) -> float:
    """Return the seconds of ``'90s'``, ``'30m'`` or ``'1.5h'``; a number is seconds.

    Raises:
        ConfigError: It is none of these, or not above 0.
    """
    if isinstance(time, str):
        found = re.fullmatch(r'(\d+\.?\d*|\.\d+)([smh])', time.strip())
        amount = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    else:
        amount = float(time)
    if not 0 < amount < float('inf'):
        raise ConfigError(f'--time {time}: give a time such as 90s, 30m or 2h')
    return amount
