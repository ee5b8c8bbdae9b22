"""Train and evaluate every config with every seed by one recipe; finished trials are kept."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from effdet_plugin.config import load
from effdet_plugin.costs import count_rows
from effdet_plugin.engine.resume import find_resume
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.files import write_atomically
from effdet_plugin.training import TestSettings, TrainSettings, evaluate, train

RECIPE_NAME = 'recipe.json'
RESULT_NAME = 'result.json'


@dataclass(frozen=True)
class TrialSettings:
    """The recipe that all trials share.

    Attributes:
        configs: Config files.
        data: Own data: folder or annotation file. Its test split is evaluated, else its validation
            split, else the images that the training held out.
        work_dir: Each trial has a folder ``CONFIG/seedN`` in it.
        seeds: Every config is trained with every seed.
        epochs: Number of epochs; None keeps that of each config.
        image_size: Input size, see `effdet_plugin.config.parse_size`; None keeps that of each
            config.
        options: ``--cfg-options`` for all configs.
    """

    configs: Sequence[Path]
    data: Path
    work_dir: Path
    seeds: Sequence[int] = (0, 1)
    epochs: int | None = None
    image_size: str | int | None = None
    options: Sequence[str] = ()

    def all_options(self) -> list[str]:
        """Return the options with the number of epochs, and without validation during training."""
        epochs = [] if self.epochs is None else [f'train_cfg.max_epochs={self.epochs}']
        return [*epochs, 'train_cfg.val_begin=1000000', *self.options]


@dataclass(frozen=True)
class Trial:
    """Result of one training.

    Attributes:
        name: File name of the config, without suffix.
        seed: Random seed.
        ap: COCO's AP, 0..1.
        ap50: AP at IoU 0.5, 0..1.
        parameters: Trainable parameters, with the classes of the data.
        multiply_adds: Of all convolutions for one image, with the classes of the data.
        minutes: Time of the evaluation and of the training since it was last resumed.
    """

    name: str
    seed: int
    ap: float
    ap50: float
    parameters: int
    multiply_adds: int
    minutes: float


def run_trials(settings: TrialSettings) -> Iterator[Trial]:
    """Train and evaluate what is not finished yet; yield every trial when it is finished.

    The loop over seeds is the outer one, so that an interrupted ablation has all configs of a seed.
    An interrupted trial resumes from its latest checkpoint.

    Args:
        settings: See `TrialSettings`.

    Raises:
        ConfigError: A trial's folder holds a trial with another recipe.
        UserError: A config or the data cannot be used.
    """
    for seed in settings.seeds:
        for config in settings.configs:
            folder = settings.work_dir / config.stem / f'seed{seed}'
            _check_recipe(folder, settings, config, seed)
            trial = _read_result(folder / RESULT_NAME)
            if trial:
                print(f'{config.stem}, seed {seed}: finished before, skipped')
            yield trial or _run(settings, config, seed, folder)


def _read_result(path: Path) -> Trial | None:
    return Trial(**json.loads(path.read_text())) if path.is_file() else None


def _check_recipe(folder: Path, settings: TrialSettings, config: Path, seed: int) -> None:
    """Write the recipe of a trial into its folder; refuse a folder with another recipe."""
    recipe = {
        'config': config.stem,
        'seed': seed,
        'data': str(settings.data.resolve()),
        'image_size': settings.image_size,
        'options': settings.all_options(),
        'content': _content_hash(settings, config),
    }
    path = folder / RECIPE_NAME
    if not path.is_file():
        write_atomically(path, json.dumps(recipe, indent=2) + '\n')
    recorded = json.loads(path.read_text())
    for key, value in recipe.items():
        if recorded.get(key) != value:
            difference = f'{key} {recorded.get(key)}, now {value}'
            if key == 'content':
                difference = f'{config.stem}.py or a file that it imports has changed'
            raise ConfigError(
                f'{folder} has a trial with another recipe ({difference}); use another --work-dir'
            )


def _content_hash(settings: TrialSettings, config: Path) -> str:
    """Return a hash of the resolved config and of the files that it imports."""
    cfg = load(config, image_size=settings.image_size, options=settings.all_options())
    digest = sha256(json.dumps(cfg.to_dict(), sort_keys=True, default=str).encode())
    for name in (cfg.get('custom_imports') or {}).get('imports', []):
        spec = find_spec(name)
        if spec and spec.origin and name != 'effdet_plugin':
            digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()[:16]


def _run(settings: TrialSettings, config: Path, seed: int, folder: Path) -> Trial:
    """Train a trial, from its latest checkpoint if it has one, evaluate it, write the result."""
    start = time.monotonic()
    shared: dict[str, Any] = {
        'image_size': settings.image_size,
        'cfg_options': settings.all_options(),
    }
    train(TrainSettings(config, settings.data, work_dir=folder, resume='auto', seed=seed, **shared))
    checkpoint = find_resume(folder)
    if checkpoint is None:
        raise CheckpointError(f'{folder}: the training has written no checkpoint')
    # The config that the training wrote has the held-out images and the number of classes.
    dumped = folder / config.name
    metrics = evaluate(TestSettings(dumped, str(checkpoint), **shared))
    values = {key.rpartition('/')[2]: value for key, value in metrics.items()}
    (row,) = count_rows([dumped], None, settings.image_size, settings.options)
    trial = Trial(
        name=config.stem,
        seed=seed,
        ap=values['bbox_mAP'],
        ap50=values['bbox_mAP_50'],
        parameters=row.costs.parameters,
        multiply_adds=row.costs.multiply_adds,
        minutes=round((time.monotonic() - start) / 60, 2),
    )
    write_atomically(folder / RESULT_NAME, json.dumps(asdict(trial), indent=2) + '\n')
    return trial
