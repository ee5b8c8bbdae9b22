"""Check by a dry run that a training would start."""

import io
import math
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from effdet_plugin.config import find_sizes, set_image_size
from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.models.backbones.pretrained import is_download
from effdet_plugin.own_data import dry_run_summary
from effdet_plugin.training.announce import targets_in
from effdet_plugin.training.running import build_runner, one_line_errors
from effdet_plugin.training.settings import TrainSettings
from effdet_plugin.training.train import prepare

_COARSEST_STRIDE = 128  # of the top level, if the config has no anchor strides
_TINY_CACHE = 'ram:0.001'  # nothing is written into a folder


def dry_run(settings: TrainSettings) -> dict[str, Any]:
    """Read and check the data, build everything, then run one training and one evaluation step.

    Images are few and small. Everything is written to a temporary folder; nothing is downloaded.

    Args:
        settings: See `TrainSettings`.

    Returns:
        ``classes``, ``train_images``, ``val_images``, ``boxes`` (targets, without crowds) and
        ``remarks``.

    Raises:
        UserError: As `train` would.
    """
    with tempfile.TemporaryDirectory(prefix='effdet-dry-run-') as folder, one_line_errors():
        prepared = prepare(settings, scratch=Path(folder))
        remarks = prepared.remarks()
        shrink(prepared.cfg, Path(folder))
        runner = build_runner(prepared.cfg)
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            runner.train()
        remarks += _remarks(runner)
        if prepared.description is not None:
            return dry_run_summary(prepared.description, []) | {'remarks': remarks}
        return _summary(runner, remarks)


def shrink(cfg: Config, folder: Path) -> None:
    """Shorten a config's training to one step and one evaluation, each of one small image."""
    cfg.work_dir = str(folder / 'run')
    cfg.experiment_name = folder.name  # mmengine's default is the same for runs of one second
    cfg.log_level = 'WARNING'
    if next(find_sizes(cfg), None):
        # Twice the coarsest stride: BN of a single image needs more than one position.
        set_image_size(cfg, 2 * _coarsest_stride(cfg))
    for name in ('train_dataloader', 'val_dataloader'):
        if cfg.get(name):
            loader = cfg[name]
            loader.update(batch_size=1, num_batch_per_epoch=1, num_workers=0)
            loader.update(persistent_workers=False, drop_last=False)
            for key in ('prefetch_factor', 'batch_sampler'):
                loader.pop(key, None)
            for node in dataset_nodes(loader.dataset):
                if node.get('cache') is not None:  # a pipeline that cannot be cached is refused
                    node['cache'] = _TINY_CACHE
    cfg.train_cfg = {'type': 'EpochBasedTrainLoop', 'max_epochs': 1, 'val_interval': 1}
    cfg.resume = False
    _disable_downloads(cfg.model.get('backbone') or {})
    cfg.setdefault('default_hooks', {})['checkpoint'] = None
    cfg.visualizer = {'type': 'DetLocalVisualizer', 'vis_backends': []}


def _disable_downloads(backbone: ConfigDict) -> None:
    """Use random weights instead of those that would be downloaded."""
    if is_download(backbone.get('pretrained')):
        backbone.pretrained = False
    if '://' in str((backbone.get('init_cfg') or {}).get('checkpoint', '')):
        backbone.init_cfg = None


def _coarsest_stride(cfg: Config) -> int:
    head = cfg.model.get('bbox_head') or {}
    strides = (head.get('anchor_generator') or {}).get('strides') or [_COARSEST_STRIDE]
    return int(max(strides))


def _remarks(runner: Runner) -> list[str]:
    """Return remarks on the steps that do not stop a training."""
    loss = runner.message_hub.get_scalar('train/loss').current()
    remarks = [] if math.isfinite(loss) else [f'the loss of the first step is {loss}']
    if runner.val_loop is None:
        remarks.append('there is no validation data: nothing is evaluated during training')
    return remarks


def _summary(runner: Runner, remarks: list[str]) -> dict[str, Any]:
    """Return the counts of the datasets that the runner has built."""
    sets = [_whole(runner.train_dataloader.dataset)]
    if runner.val_loop is not None:
        sets.append(_whole(runner.val_dataloader.dataset))
    train, *rest = sets
    return {
        'classes': list(train.metainfo.get('classes', ())),
        'train_images': len(train),
        'val_images': sum(map(len, rest)),
        'boxes': sum(targets_in(dataset, range(len(dataset))) for dataset in sets),
        'remarks': remarks,
    }


def _whole(dataset: Any) -> Any:
    """Return the whole dataset: `num_batch_per_epoch` of `shrink` makes mmengine wrap a slice."""
    return vars(dataset).get('_dataset', dataset)
