"""Evaluate a checkpoint on a config's test data or on own data."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import PrepareTTAHook

from effdet_plugin.config import load
from effdet_plugin.config.dataset_nodes import class_names, source_nodes
from effdet_plugin.download import local_path
from effdet_plugin.engine.load_weights import classes_of, skip_pretrained
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.evaluation import NAMES
from effdet_plugin.files import load_weights_only
from effdet_plugin.inference.detector import NO_CHECKPOINT
from effdet_plugin.inference.tta import TTA, apply_tta
from effdet_plugin.own_data import (
    check_annotation_files,
    read_dataset,
    set_data,
    set_num_classes,
    write_coco,
)
from effdet_plugin.training.running import (
    build_runner,
    one_line_errors,
    remove_ema_hooks,
)

_METRIC = 'CocoTwelveMetric'
# The arguments that it shares with mmdet's CocoMetric.
_KEPT_ARGUMENTS = ('ann_file', 'classwise', 'backend_args', 'prefix')
_SEED = 0  # of random weights, so that two runs give the same metrics


@dataclass(frozen=True)
class TestSettings:
    """The arguments of ``tools/test.py``: mmdet's and some more.

    Attributes:
        config: Path of a config.
        checkpoint: Path of weights, or ``'none'`` for random ones.
        data: Own data, which replaces the config's: its test split, else its validation split, else
            all of it.
        out: File for the detections in COCO's results form; None: they are not written.
        tta: Test-time augmentation; None: one view of each image.
        test_dev: Round the written detections as COCO's test server asks for.
        work_dir: Logs are written to ``test/`` in it; None: no logs.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        cfg_options: See `effdet_plugin.config.merge_options`.
    """

    __test__ = False  # pytest would collect it by its name

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
    """Run a detector on the test data and evaluate it.

    Args:
        settings: See `TestSettings`.

    Returns:
        The metrics of the config's evaluator; see `effdet_plugin.evaluation.CocoTwelveMetric`.

    Raises:
        UserError: The config, the checkpoint or the data cannot be used, or do not match.
    """
    with tempfile.TemporaryDirectory(prefix='effdet-test-') as folder, one_line_errors():
        cfg, remark = _prepare(settings, Path(folder))
        tta_model = apply_tta(cfg, settings.tta) if settings.tta else None
        runner = build_runner(cfg)
        if remark:
            runner.logger.info(remark)
        if tta_model:
            runner.register_hook(PrepareTTAHook(tta_model))
        if settings.checkpoint == NO_CHECKPOINT:
            skip_pretrained(runner.model)
            runner.model.init_weights()
        metrics: dict[str, float] = runner.test()
    return metrics


def metrics_table(metrics: Mapping[str, float]) -> str:
    """Return the metrics of an evaluation as a small table, one per line.

    Args:
        metrics: From `evaluate`.
    """
    rows = [(name.rpartition('/')[2], value) for name, value in metrics.items()]
    twelve = [f'bbox_{name}' for name in NAMES]
    width = max((len(name) for name, _ in rows), default=0)
    return '\n'.join(
        f'{name:<{width}}  {value:.{0 if name == "images" else 3}f}'
        for name, value in sorted(rows, key=lambda row: row[0] not in twelve)
    )


def _prepare(settings: TestSettings, scratch: Path) -> tuple[Config, str]:
    """Return the complete config of an evaluation, and a remark about its data or ''.

    Args:
        settings: The command line.
        scratch: Temporary folder for converted data and mmengine's files.
    """
    cfg = load(settings.config, image_size=settings.image_size, options=settings.cfg_options)
    for section in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        if not cfg.get(section):
            raise ConfigError(f'{settings.config}: has no {section}, so there is nothing to test')
    cfg.launcher, cfg.resume = settings.launcher, False
    # Not the work dir itself: the config dumped there belongs to the training run.
    cfg.work_dir = str(settings.work_dir / 'test' if settings.work_dir else scratch / 'run')
    cfg.experiment_name = scratch.name  # mmengine's default is the same for runs of one second
    is_random = settings.checkpoint == NO_CHECKPOINT
    cfg.load_from = None if is_random else str(local_path(settings.checkpoint))
    classes = classes_of(load_weights_only(cfg.load_from)) if cfg.load_from else None
    remove_ema_hooks(cfg)
    remark = ''
    if settings.data is not None:
        remark = _set_data(cfg, settings.data, classes, scratch)
    else:
        checked = check_annotation_files(cfg, ['test_dataloader'], scratch)
        checked.write()
        remark = '; '.join(checked.remarks)
    if cfg.load_from is None:
        cfg.randomness = {'seed': _SEED}
    _set_metric(cfg, settings)
    return cfg, remark


def _set_metric(cfg: Config, settings: TestSettings) -> None:
    """Set the results file, and replace mmdet's CocoMetric, which reports six of the 12 metrics."""
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
    """Replace the test data by own data; the classes stay the network's.

    Args:
        cfg: Changed in place.
        data: Folder or annotation file.
        classes: The checkpoint's; None if it has none.
        scratch: Folder for converted annotations.

    Returns:
        A remark if the tested images may have been trained on, else ''.
    """
    description = read_dataset(data).check()
    known = classes or class_names(cfg.test_dataloader.dataset)
    unknown = [name for name in description.classes if name not in known]
    if unknown and cfg.load_from is not None:
        raise CheckpointError(
            f'{cfg.load_from} does not know the class {unknown[0]!r} of {data} (it knows '
            f'{", ".join(known[:5])}{", ..." if len(known) > 5 else ""})'
        )
    paths = write_coco(description, scratch)
    tested = next(name for name in ('test', 'val', 'train') if description.splits.get(name))
    set_data(cfg, description, dict.fromkeys(('train', 'val', 'test'), paths[tested]))
    if not unknown:
        set_num_classes(cfg, len(known))
        for node in source_nodes(cfg.test_dataloader.dataset):
            if 'ann_file' in node:
                node.metainfo = {**(node.get('metainfo') or {}), 'classes': tuple(known)}
    if tested != 'train' or data.is_file():  # a file was chosen, a folder's split was not
        return ''
    return (
        f'{data} has no test or validation split: all {len(description.train)} images are '
        'tested; to test those that a training with --data held out, give WORK_DIR/CONFIG.py '
        'without --data'
    )
