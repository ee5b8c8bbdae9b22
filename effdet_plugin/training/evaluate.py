"""Evaluate a checkpoint on a config's test data, or on one's own."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.hooks import PrepareTTAHook

from effdet_plugin.config import load
from effdet_plugin.engine.load_weights import classes_of
from effdet_plugin.engine.runner import skip_pretrained
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.evaluation import NAMES
from effdet_plugin.files import load_weights_only
from effdet_plugin.inference.tta import TTA, apply_tta
from effdet_plugin.own_data import (
    DatasetDescription,
    check_annotation_files,
    read_dataset,
    set_data,
    set_num_classes,
    write_coco,
)
from effdet_plugin.training.running import (
    build_runner,
    is_first_process,
    one_line_errors,
    without_average,
)

NO_CHECKPOINT = 'none'  # random weights, to try the chain
_METRIC = 'CocoTwelveMetric'
# What it takes of the arguments of mmdet's CocoMetric.
_KEPT_ARGUMENTS = ('ann_file', 'classwise', 'backend_args', 'prefix')
_SEED = 0  # of random weights


@dataclass(frozen=True)
class TestSettings:
    """The arguments of ``tools/test.py``, which are mmdet's own and some more.

    Attributes:
        config: Path of a config.
        checkpoint: Path of weights, or ``'none'`` for random ones.
        data: A person's own data in place of the config's: its test split, else its validation
            split, else all of it.
        out: Where the detections are written in COCO's results form; None: nowhere.
        tta: Several views of each picture, merged; None: the picture as it is.
        test_dev: Write them with the decimals that COCO's test server asks for.
        work_dir: Logs go into ``test/`` there; None keeps none.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        image_size: In place of the config's; see `effdet_plugin.config.parse_size`.
        cfg_options: See `effdet_plugin.config.merge_options`.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    config: Path
    checkpoint: str
    data: Path | None = None
    out: Path | None = None
    tta: TTA | None = None
    test_dev: bool = False
    work_dir: Path | None = None
    launcher: str = 'none'
    image_size: str | int | None = None
    cfg_options: Sequence[str] | dict[str, Any] | None = None


def evaluate(settings: TestSettings) -> dict[str, float]:
    """Detect on the test data and evaluate.

    Args:
        settings: See `TestSettings`.

    Returns:
        The numbers of the config's evaluator; see `effdet_plugin.evaluation.CocoTwelveMetric`.

    Raises:
        UserError: The config, the checkpoint or the data cannot be used, or do not fit together.
    """
    with tempfile.TemporaryDirectory(prefix='effdet-test-') as folder, one_line_errors():
        cfg, remark = _prepare(settings, Path(folder))
        views = apply_tta(cfg, settings.tta) if settings.tta else None
        runner = build_runner(cfg)
        if remark:
            runner.logger.info(remark)
        if views:
            runner.register_hook(PrepareTTAHook(views))
        if settings.checkpoint == NO_CHECKPOINT:
            skip_pretrained(runner.model)
            runner.model.init_weights()
        metrics: dict[str, float] = runner.test()
    return metrics


def numbers_table(metrics: Mapping[str, float]) -> str:
    """Return the numbers of an evaluation as a small table, one a line.

    Args:
        metrics: As `evaluate` returns them.
    """
    rows = [(name.rpartition('/')[2], value) for name, value in metrics.items()]
    twelve = [f'bbox_{name}' for name in NAMES]
    width = max((len(name) for name, _ in rows), default=0)
    return '\n'.join(
        f'{name:<{width}}  {value:.0f}' if name == 'images' else f'{name:<{width}}  {value:.3f}'
        for name, value in sorted(rows, key=lambda row: row[0] not in twelve)
    )


def _prepare(settings: TestSettings, scratch: Path) -> tuple[Config, str]:
    """Return the complete config of an evaluation, and a line to say about its data, or ''.

    Converted data goes into the scratch folder.
    """
    cfg = load(settings.config, image_size=settings.image_size, options=settings.cfg_options)
    for section in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        if not cfg.get(section):
            raise ConfigError(f'{settings.config}: has no {section}, so there is nothing to test')
    cfg.launcher, cfg.resume = settings.launcher, False
    # Not the work dir itself, whose dumped config tells a later training what is there.
    cfg.work_dir = str(settings.work_dir / 'test' if settings.work_dir else scratch / 'run')
    cfg.experiment_name = scratch.name  # mmengine's own differ by seconds only
    cfg.load_from, classes = _checkpoint(settings.checkpoint)
    without_average(cfg)
    remark = ''
    if settings.data is not None:
        remark = _set_data(cfg, settings.data, classes, scratch)
    elif is_first_process():
        check_annotation_files(cfg, ['test_dataloader'])
    if cfg.load_from is None:
        cfg.randomness = {'seed': _SEED}
    _set_metric(cfg, settings)
    return cfg, remark


def _checkpoint(name: str) -> tuple[str | None, tuple[str, ...] | None]:
    """Return the path of a checkpoint that can be read, and its class names."""
    if name == NO_CHECKPOINT:
        return None, None
    return name, classes_of(load_weights_only(name))


def _set_metric(cfg: Config, settings: TestSettings) -> None:
    """Let the evaluator write the results, and give COCO's 12 numbers in place of mmdet's six."""
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    for metric in metrics:
        if metric.type == 'CocoMetric' and metric.get('metric', 'bbox') in ('bbox', ['bbox']):
            kept = {key: metric[key] for key in _KEPT_ARGUMENTS if key in metric}
            metric.clear()
            metric.update(type=_METRIC, **kept)
    ours = [metric for metric in metrics if metric.type == _METRIC]
    if settings.out is None:
        return
    if not ours:
        raise ConfigError(
            f'--out: the evaluator {metrics[0].type} writes no COCO results; {_METRIC} does'
        )
    ours[0].update(results_file=str(settings.out), test_dev_form=settings.test_dev)


def _set_data(cfg: Config, data: Path, classes: tuple[str, ...] | None, scratch: Path) -> str:
    """Point the test data to a person's own; the classes stay the network's.

    Args:
        cfg: Changed in place.
        data: Folder or annotation file.
        classes: The checkpoint's, None if it does not say.
        scratch: Where converted annotations go.

    Returns:
        A line to say where pictures that a training took may be tested, else ''.
    """
    description = read_dataset(data).check()
    known = classes or _configured_classes(cfg)
    unknown = [name for name in description.classes if name not in known]
    if unknown and cfg.load_from is not None:
        raise CheckpointError(
            f'{cfg.load_from} does not know the class {unknown[0]!r} of {data} (it knows '
            f'{", ".join(known[:5])}{", ..." if len(known) > 5 else ""})'
        )
    paths = write_coco(description, scratch)
    tested = _tested_split(description)
    set_data(cfg, description, dict.fromkeys(('train', 'val', 'test'), paths[tested]))
    if not unknown:
        set_num_classes(cfg, len(known))
        _set_classes(cfg.test_dataloader.dataset, known)
    if tested != 'train' or data.is_file():  # a file was chosen, a folder's split was not
        return ''
    return (
        f'{data} has no test or validation split: all {len(description.train)} pictures are '
        'tested; for those that a training by --data held out give WORK_DIR/CONFIG.py without '
        '--data'
    )


def _tested_split(description: DatasetDescription) -> str:
    return next(name for name in ('test', 'val', 'train') if description.splits.get(name))


def _configured_classes(cfg: Config) -> tuple[str, ...]:
    """Return the class names of the config's test data set, looked for inside its wrappers."""
    node = cfg.test_dataloader.dataset
    while 'dataset' in node:
        node = node.dataset
    classes = (node.get('metainfo') or {}).get('classes')
    return tuple(classes or getattr(DATASETS.get(node.type), 'METAINFO', {}).get('classes', ()))


def _set_classes(node: Any, classes: Sequence[str]) -> None:
    """Set the class names of the data sets below a node of wrappers."""
    for inner in [node.get('dataset'), *(node.get('datasets') or [])]:
        if inner:
            _set_classes(inner, classes)
    if 'ann_file' in node:
        node.metainfo = {**(node.get('metainfo') or {}), 'classes': tuple(classes)}
