"""A training that speaks: its settings, the AP of each evaluation, results and report."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from effdet_plugin.engine.hooks import is_time_to_read
from effdet_plugin.errors import CheckpointError
from effdet_plugin.evaluation import CocoTwelveMetric
from effdet_plugin.own_data import DatasetDescription
from effdet_plugin.report import Detections, Facts, Subject, read_history, write_report
from effdet_plugin.training.announce import Row, in_time, rows_of, table
from effdet_plugin.training.recipe import Choice
from effdet_plugin.training.reporting import (
    best_checkpoint,
    command,
    facts_of,
    image_folder,
    kept_metric,
    next_command,
)
from effdet_plugin.training.start_weights import Start

DETECTIONS = 'best_detections.npz'  # of the epoch with the highest AP, in the work dir
_TIMED_FROM, _TIMED = 2, 4  # steps of an epoch: the first ones are slower
_EVALUATION = 1 / 3  # of a step's time takes a batch of an evaluation
_MOST_CLASSES = 20  # in the table at the end
_AP = '/bbox_mAP'


class SpeakHook(Hook):
    """Logs what a training is about to do, how long it will take, and each evaluation's AP.

    The detections of the best evaluation are kept in the work dir, for the report. All of it is
    done by the first process, and nothing waits for the device between two lines of the log.

    Args:
        description: The own data; None where the config names the data.
        overridden: What the person has set, such as ``train_cfg.max_epochs``.
        choices: What the data have decided, and advice.
        start: The weights that were chosen; None where the config names them.

    Attributes:
        rows: The settings; empty before the training begins.
        best: Epoch and AP of the best evaluation.
    """

    priority = 'VERY_LOW'  # after the losses are read, and the best checkpoint is written

    def __init__(
        self,
        description: DatasetDescription | None = None,
        overridden: Sequence[str] = (),
        choices: Sequence[Choice] = (),
        start: Start | None = None,
    ) -> None:
        self.description, self.overridden = description, overridden
        self.choices, self.start = choices, start
        self.rows: list[Row] = []
        self.best: tuple[int, float] | None = None
        self.metric: CocoTwelveMetric | None = None
        self._timed: tuple[int, float] | None = None
        self._is_told = False
        self._began = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        """Show the settings."""
        if not is_main_process():
            return
        if runner.val_loop is not None:
            self.metric = kept_metric(runner.val_evaluator)
        if runner.epoch and (kept := Detections.load(Path(runner.work_dir) / DETECTIONS)):
            self.best = kept[1:]
        self.rows = rows_of(runner, self.description, self.overridden, self.start)
        self.rows += [Row(*one[:3]) for one in self.choices]
        runner.logger.info('Training\n' + table(self.rows))

    def before_train_epoch(self, runner: Runner) -> None:
        """Restart the clock: an evaluation may lie in between."""
        self._timed, self._began = None, time.monotonic()

    def after_train_epoch(self, runner: Runner) -> None:
        """Say it at the latest here: an epoch may have few steps."""
        if not self._is_told and is_main_process():
            self._tell(runner, (time.monotonic() - self._began) / len(runner.train_dataloader))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Say once how long the training takes."""
        if self._is_told or not is_main_process():
            return
        if self._timed is None:
            if batch_idx + 1 >= _TIMED_FROM:
                self._timed = runner.iter, time.monotonic()
            return
        steps = runner.iter - self._timed[0]
        if steps >= _TIMED and is_time_to_read(self, runner, batch_idx):
            self._tell(runner, (time.monotonic() - self._timed[1]) / steps)

    def _tell(self, runner: Runner, step: float) -> None:
        self._is_told = True
        left = in_time(_seconds_left(runner, step))
        runner.logger.info(f'Estimated time: about {left} ({step:.2g} s a step)')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Show AP and AP50, and keep the detections of the best evaluation."""
        if not metrics or not is_main_process():
            return
        found = next(((k, v) for k, v in metrics.items() if k.endswith(_AP)), None)
        if found is None:  # of another evaluator, such as VOC's
            words = (f'{k} {v:.3f}' for k, v in metrics.items() if isinstance(v, float))
            runner.logger.info(f'Epoch {runner.epoch}: {", ".join(words)}')
            return
        name, ap = found
        epoch = runner.epoch
        is_best = self.best is None or ap > self.best[1]
        line = f'Epoch {epoch}: AP {ap:.3f}, AP50 {metrics.get(f"{name}_50", -1.0):.3f}'
        if self.best is not None and not is_best:
            runner.logger.info(f'{line} (best: {self.best[1]:.3f})')
        else:
            runner.logger.info(f'{line}, the best so far')
            self.best = epoch, ap
        kept = None if self.metric is None else self.metric.kept
        if self.metric is None or kept is None:
            return
        if is_best:
            Detections.of(kept).save(Path(runner.work_dir) / DETECTIONS, epoch, ap)
        self.metric.kept = kept._replace(results=[])  # 300 MB for COCO's images

    def facts(self, work_dir: Path) -> Facts | None:
        """Return the facts of the best evaluation; None where there was none."""
        if self.metric is None or self.best is None:
            return None
        kept = Detections.load(work_dir / DETECTIONS)
        return None if kept is None else facts_of(self.metric, kept[0])


def _seconds_left(runner: Runner, step: float) -> float:
    # At the end of an epoch the step is counted already: none is left of a training of one.
    steps = max(runner.max_iters - runner.iter - 1, 0)
    seconds = steps * step
    if runner.val_loop is not None:
        interval = getattr(runner.train_loop, 'val_interval', 1) * len(runner.train_dataloader)
        evaluations = max(1, round(steps / interval))
        seconds += evaluations * len(runner.val_dataloader) * step * _EVALUATION
    return float(seconds)


def end(runner: Runner, cfg: Config, hook: SpeakHook, seconds: float) -> Iterator[str]:
    """Yield the lines that end a training, and write its report where the config wants one.

    Args:
        runner: After its training, in the first process.
        cfg: Of the training.
        hook: Of it.
        seconds: That it took.
    """
    work_dir = Path(cfg.work_dir)  # as it was given; the runner's is absolute
    facts = hook.facts(work_dir)
    yield f'Trained {runner.epoch} epoch{"s" * (runner.epoch != 1)} in {in_time(seconds)}'
    if facts is not None and hook.best is not None:
        yield from result_lines(facts, hook.best[0])
    try:
        checkpoint = best_checkpoint(work_dir)
    except CheckpointError:
        return
    files = [('checkpoint', str(checkpoint)), ('log', str(work_dir / Path(runner.log_dir).name))]
    commands = [command('predict', checkpoint, 'IMAGE_OR_FOLDER'), next_command(cfg, 'onnx')]
    if facts is not None and cfg.get('report', True):
        starts = sorted(path.parent for path in work_dir.glob('*/vis_data'))
        log_dirs = starts if cfg.get('resume') else [Path(runner.log_dir)]
        subject = Subject(
            f'{work_dir.name}: epoch {hook.best[0] if hook.best else runner.epoch}',
            image_folder(cfg.val_dataloader.dataset),
            read_history(log_dirs, len(runner.train_dataloader)),
            hook.rows,
            _boxes_by_class(hook.description),
            commands,
        )
        files.append(('report', str(write_report(facts, subject, work_dir))))
    yield '\n'.join(f'{name:<10}  {path}' for name, path in files)
    yield '\n'.join(f'{"next" * (not place):<10}  {one}' for place, one in enumerate(commands))


def result_lines(facts: Facts, epoch: int) -> Iterator[str]:
    """Yield the result: AP and AP50, a table of the classes, the best and the worst one.

    Args:
        facts: Of the best evaluation.
        epoch: It.
    """
    yield (
        f'Best epoch {epoch}: AP {facts.metrics["mAP"]:.3f}, AP50 {facts.metrics["mAP_50"]:.3f} '
        f'on {len(facts.images):,} images'
    )
    scored = facts.scored()
    shown = scored
    if len(scored) > _MOST_CLASSES:
        half = _MOST_CLASSES // 2
        shown = [*scored[:half], *scored[-half:]]
    width = max((len(one.name) for one in shown), default=5)
    rows = [f'  {"class":<{width}}     AP   AP50  boxes']
    rows += [f'  {o.name:<{width}}  {o.ap:5.3f}  {o.ap50:5.3f}  {o.boxes:5}' for o in shown]
    if len(scored) > len(shown):
        rows.append(f'  (the {half} best and the {half} worst of {len(scored)} classes)')
    yield '\n'.join(rows)
    if len(scored) > 1:
        best, worst = scored[0], scored[-1]
        yield (
            f'Best class {best.name} (AP {best.ap:.3f}), '
            f'worst class {worst.name} (AP {worst.ap:.3f})'
        )


def _boxes_by_class(description: DatasetDescription | None) -> dict[str, int] | None:
    if description is None:
        return None
    counts = description.train.class_counts(len(description.classes))
    return dict(zip(description.classes, counts.tolist(), strict=True))
