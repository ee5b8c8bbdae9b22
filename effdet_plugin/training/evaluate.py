"""Evaluate a checkpoint on a config's test data or on own data."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import PrepareTTAHook

from effdet_plugin.config import load, parse_options, resize_mode_of, set_resize_mode
from effdet_plugin.config.dataset_nodes import class_names, source_nodes
from effdet_plugin.config.embedded import embedded_config
from effdet_plugin.config.schema import RESIZE_KEY
from effdet_plugin.download import local_path
from effdet_plugin.engine.load_weights import skip_pretrained
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.evaluation import NAMES, CocoTwelveMetric
from effdet_plugin.export.runtime import is_runtime_file
from effdet_plugin.inference.detector import split_model
from effdet_plugin.inference.runtime_model import load_file, refuse_network_options
from effdet_plugin.inference.tiles import Tiles, apply_views
from effdet_plugin.inference.tta import TTA, tta_of_file
from effdet_plugin.own_data import (
    check_annotation_files,
    read_dataset,
    set_data,
    set_num_classes,
    write_coco,
)
from effdet_plugin.report import Subject, write_report
from effdet_plugin.trained_model import NO_CHECKPOINT, TrainedModel, changed
from effdet_plugin.training.console import plain_console, without_noise
from effdet_plugin.training.reporting import (
    command,
    facts_of,
    image_folder,
    kept_metric,
    size_in_words,
)
from effdet_plugin.training.running import (
    build_runner,
    one_line_errors,
    remove_ema_hooks,
)
from effdet_plugin.weights_only import classes_of, load_weights_only

_METRIC = 'CocoTwelveMetric'
_RUNTIME_MODE = 'stretch_mediapipe'  # of a .tflite
# The arguments that it shares with mmdet's CocoMetric.
_KEPT_ARGUMENTS = ('ann_file', 'classwise', 'backend_args', 'prefix')
_BATCH_SIZE = 8  # where the config is a model's own, which keeps no loader
_SEED = 0  # of random weights, so that two runs give the same metrics


@dataclass(frozen=True)
class TestSettings:
    """The arguments of ``tools/test.py``: mmdet's and some more.

    Attributes:
        config: Path of a config, or the name of one of ours; None: the one that the checkpoint
            carries, which names no data.
        checkpoint: Path of weights or of an exported file, or ``'none'`` for random weights.
        data: Own data, which replaces the config's: its test split, else its validation split, else
            all of it.
        out: File for the detections in COCO's results form; None: they are not written.
        tta: Test-time augmentation; None: one view of each image.
        tiles: Overlapping tiles of each image; see `effdet_plugin.inference.Tiles.parse`.
        test_dev: Round the written detections as COCO's test server asks for.
        work_dir: Logs are written to ``test/`` in it; None: no logs.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        cfg_options: See `effdet_plugin.config.merge_options`.
        report: Folder for ``report.html`` and ``report.png``; None: they are not written.
    """

    __test__ = False  # pytest would collect it by its name

    config: Path | str | None
    checkpoint: str
    data: Path | None = None
    out: Path | None = None
    tta: TTA | None = None
    tiles: Tiles | str | int | None = None
    test_dev: bool = False
    work_dir: Path | None = None
    launcher: str = 'none'
    image_size: str | int | None = None
    cfg_options: Sequence[str] | dict[str, Any] | None = None
    report: Path | None = None


def evaluate(settings: TestSettings) -> dict[str, float]:
    """Run a detector on the test data and evaluate it.

    Args:
        settings: See `TestSettings`.

    Returns:
        The metrics of the config's evaluator; see `effdet_plugin.evaluation.CocoTwelveMetric`.

    Raises:
        UserError: The config, the checkpoint or the data cannot be used, or do not match.
    """
    folders = tempfile.TemporaryDirectory(prefix='effdet-test-')
    with folders as folder, one_line_errors(), ExitStack() as consoles:
        cfg, remark, from_file = _prepare(settings, Path(folder))
        tta = settings.tta
        if from_file:
            tta = tta_of_file(tta, from_file.model.metadata, settings.checkpoint)
        views_model = apply_views(cfg, tta, settings.tiles)
        runner = build_runner(cfg)
        consoles.enter_context(without_noise(runner))
        consoles.enter_context(plain_console(runner, with_bar=False))
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            _ = runner.test_loop  # builds the dataset
        if from_file:
            runner.model = from_file.model
        if remark:
            runner.logger.info(remark)
        if views_model:
            runner.register_hook(PrepareTTAHook(views_model))
        if settings.checkpoint == NO_CHECKPOINT:
            skip_pretrained(runner.model)
            runner.model.init_weights()
        metric = None
        if settings.report is not None:
            metric = kept_metric(runner.test_evaluator)
            if metric is None:
                raise ConfigError(f'--report: only the evaluator {_METRIC} keeps detections')
        metrics: dict[str, float] = runner.test()
        if metric is not None and settings.report is not None:
            _write_report(settings, settings.report, metric, cfg)
    return metrics


def _write_report(
    settings: TestSettings, folder: Path, metric: CocoTwelveMetric, cfg: Config
) -> None:
    """Write the report of an evaluation, in the first process."""
    facts = facts_of(metric)
    if facts is None:
        return
    used = {
        'model': settings.checkpoint,
        'config': settings.config or 'the one that the model carries',
        'data': settings.data or 'of the config',
        'input size': size_in_words(cfg.test_dataloader.dataset),
        'resize mode': resize_mode_of(cfg.test_dataloader.dataset),
        'test-time augmentation': settings.tta.merge if settings.tta else 'none',
        'tiles': settings.tiles or 'none',
    }
    subject = Subject(
        title=f'{Path(settings.checkpoint).name} on {settings.data or settings.config}',
        images=image_folder(cfg.test_dataloader.dataset),
        settings=[(name, str(value), '') for name, value in used.items()],
        commands=[command('predict', settings.checkpoint, 'IMAGE_OR_FOLDER')],
    )
    write_report(facts, subject, folder)


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


def _prepare(settings: TestSettings, scratch: Path) -> tuple[Config, str, TrainedModel | None]:
    """Return the config of an evaluation, a remark about its data or '', and an exported file.

    Args:
        settings: The command line.
        scratch: Temporary folder for converted data and mmengine's files.
    """
    cfg, classes, from_file = _load(settings)
    for section in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        if not cfg.get(section):
            raise ConfigError(f'{settings.config}: has no {section}, so there is nothing to test')
    cfg.launcher, cfg.resume = settings.launcher, False
    # Not the work dir itself: the config dumped there belongs to the training run.
    cfg.work_dir = str(settings.work_dir / 'test' if settings.work_dir else scratch / 'run')
    cfg.experiment_name = scratch.name  # mmengine's default is the same for runs of one second
    has_weights = settings.checkpoint != NO_CHECKPOINT and from_file is None
    cfg.load_from = str(local_path(settings.checkpoint)) if has_weights else None
    remove_ema_hooks(cfg)
    remark = ''
    if settings.data is not None:
        remark = _set_data(cfg, settings, classes, scratch)
    else:
        checked = check_annotation_files(cfg, ['test_dataloader'], scratch)
        checked.write()
        remark = '; '.join(checked.remarks)
    if cfg.load_from is None:
        cfg.randomness = {'seed': _SEED}
    _set_metric(cfg, settings)
    if from_file is not None:
        remark = '; '.join(filter(None, (remark, _resize_as_runtimes(cfg, from_file, settings))))
    return cfg, remark, from_file


def _resize_as_runtimes(cfg: Config, file: TrainedModel, settings: TestSettings) -> str:
    """Resize images as the runtimes of a ``.tflite`` do; return a remark, '' for other files."""
    known = file.model.metadata
    if known.format != 'tflite':
        return ''
    if RESIZE_KEY in parse_options(settings.cfg_options or {}):
        return f'images are resized by {resize_mode_of(cfg.test_dataloader.dataset)}, as asked for'
    if known.resize_mode != 'letterbox':
        return f'images are resized by {known.resize_mode}, as the runtime does it'
    set_resize_mode(cfg, _RUNTIME_MODE)
    return (
        f'images are resized by {_RUNTIME_MODE}, as MediaPipe Tasks do it; the network was trained '
        'letter-boxed (--resize letterbox)'
    )


def _load(settings: TestSettings) -> tuple[Config, tuple[str, ...] | None, TrainedModel | None]:
    """Return the config, the model's classes (None: it carries none), and an exported file."""
    given, checkpoint = split_model(settings.config, settings.checkpoint)
    if given is None and settings.data is None:
        raise ConfigError(
            f'{checkpoint}: without CONFIG, give --data DIR: no file that a model names is read'
        )
    size, options = settings.image_size, settings.cfg_options
    if is_runtime_file(checkpoint):
        place = local_path(checkpoint)
        if given is not None:
            found = load_file(place, given, image_size=size, options=options)
            set_num_classes(found.config, len(found.classes))  # the network is the file's
            return found.config, found.classes, found
        found = load_file(place, image_size=size)
        cfg = _testable(found.config)
        refuse_network_options(checkpoint, options)
        return changed(cfg, None, options), found.classes, found
    if given is not None:
        assert not isinstance(given, Config)
        cfg = load(given, image_size=size, options=options)
        if checkpoint == NO_CHECKPOINT:
            return cfg, None, None
        return cfg, classes_of(load_weights_only(local_path(checkpoint))), None
    loaded = load_weights_only(local_path(checkpoint))
    cfg = _testable(embedded_config(loaded, str(checkpoint)))
    return changed(cfg, size, options), classes_of(loaded), None


def _testable(embedded: Config) -> Config:
    """Return the config in a model with the sections of a test, whose data is still to be set."""
    dataset = embedded.test_dataloader.dataset
    node = {
        **dataset,
        'type': 'EfficientDetDataset',
        'dataset': {
            'type': 'CocoDataset',
            'ann_file': '',
            'metainfo': dataset.pop('metainfo', {}),
            'test_mode': True,
        },
    }
    node.pop('metainfo', None)
    loader = {
        'batch_size': _BATCH_SIZE,
        'num_workers': 2,
        'drop_last': False,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'dataset': node,
    }
    sections = {
        'default_scope': 'mmdet',
        'model': embedded.model,
        'test_dataloader': loader,
        'test_evaluator': {'type': _METRIC, 'ann_file': ''},
        'test_cfg': {'type': 'TestLoop'},
    }
    return Config(sections)


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


def _set_data(
    cfg: Config, settings: TestSettings, classes: tuple[str, ...] | None, scratch: Path
) -> str:
    """Replace the test data by own data; the classes stay the network's.

    Args:
        cfg: Changed in place.
        settings: The command line, with data: a folder or annotation file.
        classes: The checkpoint's; None if it has none.
        scratch: Folder for converted annotations.

    Returns:
        A remark if the tested images may have been trained on, else ''.
    """
    assert settings.data is not None
    data = settings.data
    description = read_dataset(data).check()
    known = classes or class_names(cfg.test_dataloader.dataset)
    unknown = [name for name in description.classes if name not in known]
    if unknown and settings.checkpoint != NO_CHECKPOINT:
        raise CheckpointError(
            f'{settings.checkpoint} does not know the class {unknown[0]!r} of {data} (it knows '
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
