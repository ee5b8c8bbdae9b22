"""Train the cells of an ablation, each config with each seed, by one recipe; what is done stays."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from effdet_plugin.ablation.table import count_rows
from effdet_plugin.config import load
from effdet_plugin.engine.load_weights import classes_of
from effdet_plugin.engine.resume import find_resume
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.files import load_weights_only, replacing
from effdet_plugin.training import TestSettings, TrainSettings, evaluate, train

RECIPE_NAME = 'recipe.json'
RESULT_NAME = 'result.json'


@dataclass(frozen=True)
class CellSettings:
    """What is the same for all cells.

    Attributes:
        configs: Config files.
        data: Own data: folder or annotation file; its test split, or else its validation split,
            is what is evaluated; if it has neither, what the training held out.
        work_dir: Each cell has its folder ``CONFIG/seedN`` there.
        seeds: Each config is trained with each.
        epochs: In place of the configs'.
        image_size: In place of the configs'; see `effdet_plugin.config.parse_size`.
        options: ``--cfg-options``, for all.
    """

    configs: Sequence[Path]
    data: Path
    work_dir: Path
    seeds: Sequence[int] = (0, 1)
    epochs: int | None = None
    image_size: str | int | None = None
    options: Sequence[str] = ()

    def all_options(self) -> list[str]:
        """Return the options with the length of the training; nothing is evaluated on the way."""
        length = [] if self.epochs is None else [f'train_cfg.max_epochs={self.epochs}']
        return [*length, 'train_cfg.val_begin=1000000', *self.options]


@dataclass(frozen=True)
class Cell:
    """One trained and evaluated cell.

    Attributes:
        name: The config's.
        seed: Of everything random.
        ap: COCO's AP, 0..1.
        ap50: At IoU 0.5.
        parameters: At the number of classes of the data.
        multiply_adds: The same.
        minutes: The last uninterrupted stretch of its training, and its evaluation.
    """

    name: str
    seed: int
    ap: float
    ap50: float
    parameters: int
    multiply_adds: int
    minutes: float


def run_cells(settings: CellSettings) -> Iterator[Cell]:
    """Train and evaluate what is not finished yet; yield every cell as it is there.

    One seed after the other, so that an ablation that was stopped has all configs of a seed. A cell
    that was stopped goes on from its newest checkpoint.

    Args:
        settings: See `CellSettings`.

    Raises:
        ConfigError: A cell's folder holds one of another recipe.
        UserError: A config or the data cannot be used.
    """
    for seed in settings.seeds:
        for config in settings.configs:
            folder = settings.work_dir / config.stem / f'seed{seed}'
            _check_recipe(folder, _recipe(settings, config, seed))
            cell = read_cell(folder)
            if cell:
                print(f'{config.stem}, seed {seed}: finished before, not run again')
            yield cell or _run(settings, config, seed, folder)


def finished_cells(work_dir: Path) -> list[Cell]:
    """Return the cells below a folder that are finished.

    Args:
        work_dir: Of `CellSettings`.
    """
    found = (read_cell(path.parent) for path in sorted(work_dir.glob(f'*/seed*/{RESULT_NAME}')))
    return [cell for cell in found if cell]


def read_cell(folder: Path) -> Cell | None:
    """Return the finished cell of a folder; None if it is not finished."""
    path = folder / RESULT_NAME
    return Cell(**json.loads(path.read_text())) if path.is_file() else None


def _recipe(settings: CellSettings, config: Path, seed: int) -> dict[str, Any]:
    return {
        'config': config.stem,
        'seed': seed,
        'data': str(settings.data.resolve()),
        'image_size': settings.image_size,
        'options': settings.all_options(),
        'content': _content(settings, config),
    }


def _content(settings: CellSettings, config: Path) -> str:
    """Return a hash of what a config says, and of the files that it imports."""
    cfg = load(config, image_size=settings.image_size, options=settings.all_options())
    digest = sha256(json.dumps(cfg.to_dict(), sort_keys=True, default=str).encode())
    for name in (cfg.get('custom_imports') or {}).get('imports', []):
        spec = find_spec(name)
        if spec and spec.origin and name != 'effdet_plugin':
            digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()[:16]


def _check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Note the recipe of a cell; refuse a folder that has another."""
    path = folder / RECIPE_NAME
    if not path.is_file():
        _write(path, recipe)
    noted = json.loads(path.read_text())
    for key, value in recipe.items():
        if noted.get(key) != value:
            other = f'{key} {noted.get(key)}, now {value}'
            if key == 'content':
                other = f'{recipe["config"]}.py or a file that it imports is not what it was'
            raise ConfigError(
                f'{folder} holds a cell of another recipe ({other}); take another --work-dir'
            )


def _run(settings: CellSettings, config: Path, seed: int, folder: Path) -> Cell:
    """Train a cell, from its newest checkpoint if it has one, evaluate it and note the result."""
    start = time.monotonic()
    shared: dict[str, Any] = {
        'image_size': settings.image_size,
        'cfg_options': settings.all_options(),
    }
    train(TrainSettings(config, settings.data, work_dir=folder, resume='auto', seed=seed, **shared))
    checkpoint = find_resume(folder)
    if checkpoint is None:
        raise CheckpointError(f'{folder}: the training has left no checkpoint')
    # The config that the training has left knows what was held out; the data itself may not.
    numbers = evaluate(TestSettings(folder / config.name, str(checkpoint), **shared))
    classes = classes_of(load_weights_only(checkpoint)) or ()
    row = count_rows([config], len(classes), settings.image_size, settings.options)[0]
    cell = Cell(
        name=config.stem,
        seed=seed,
        ap=_of(numbers, 'bbox_mAP'),
        ap50=_of(numbers, 'bbox_mAP_50'),
        parameters=row.costs.parameters,
        multiply_adds=row.costs.multiply_adds,
        minutes=round((time.monotonic() - start) / 60, 2),
    )
    _write(folder / RESULT_NAME, asdict(cell))
    return cell


def _of(numbers: dict[str, float], name: str) -> float:
    return next(value for key, value in numbers.items() if key.rpartition('/')[2] == name)


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + '\n')
