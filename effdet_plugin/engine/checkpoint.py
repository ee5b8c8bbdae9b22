"""Checkpoints that are whole or absent, plain to load, and enough to go on exactly."""

from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from effdet_plugin import __version__
from effdet_plugin.engine.plain import from_plain, to_plain
from effdet_plugin.engine.random_state import TrainingRandomness
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import load_weights_only, remove_parts, replacing

LAST = 'last_checkpoint'  # mmengine's name of the file that names the newest one
# Their values are tensors, and the order and version marks of torch's own dict stay.
_STATE_DICTS = ('state_dict', 'ema_state_dict')


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """mmengine's local files, written atomically: ``backend_args=dict(backend='atomic')``."""

    def put(self, obj: bytes, filepath: Path | str) -> None:
        """Write bytes to a file."""
        with replacing(filepath) as part:
            part.write_bytes(obj)

    def put_text(self, obj: str, filepath: Path | str, encoding: str = 'utf-8') -> None:
        """Write text to a file."""
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against a stop at any moment.

    - Files appear whole or not at all, and an old one goes only after its successor is there.
    - What it writes loads with ``torch.load(weights_only=True)``, which runs no code.
    - With the generators' states in it, a resumed run goes on as if it had not stopped: the same
      pictures (by `EpochSampler`), learning rate, moving average and drop-connect.

    Args:
        interval: Epochs between checkpoints.
        **kwargs: Other arguments of ``CheckpointHook``. ``by_epoch=False`` is for iteration-based
            loops: an epoch cannot be resumed in its middle.
    """

    def __init__(self, interval: int = 1, **kwargs: Any) -> None:
        kwargs.setdefault('backend_args', {'backend': 'atomic'})
        super().__init__(interval, **kwargs)
        self.randomness = TrainingRandomness()

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and remove what a killed process has left there."""
        if not self.by_epoch and isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError(
                'by_epoch=False of the checkpoint hook writes files in the middle of an epoch, '
                'where a run cannot be resumed; use by_epoch=True or an IterBasedTrainLoop'
            )
        super().before_train(runner)
        if is_main_process():
            for part in remove_parts(self.out_dir):
                runner.logger.info(f'Removed {part}: its writer was stopped')

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any | None = None
    ) -> None:
        """Take up the stream of random numbers, now that the loader has drawn its own."""
        if batch_idx == 0 and self.randomness.states and not self.randomness.take_up():
            runner.logger.warning(
                'The checkpoint is of a run with fewer processes: random numbers start anew here'
            )

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the checkpoint of the epoch."""
        self.randomness.hold()
        super().after_train_epoch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Complete a checkpoint and make it plain."""
        checkpoint['random_states'] = self.randomness.states
        checkpoint['meta']['effdet_plugin_version'] = __version__
        for key in checkpoint.keys() - _STATE_DICTS:
            checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the training's state from a checkpoint, if the run goes on from it."""
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = from_plain(checkpoint['message_hub'])
        if not runner._resume:
            return
        self.randomness.states = checkpoint.get('random_states', [])
        # The loader was built before the checkpoint was read, with the seed of this start.
        reseed = getattr(runner.train_dataloader.sampler, 'reseed', None)
        seed = checkpoint['meta'].get('seed')
        if reseed is not None and seed is not None:
            reseed(seed)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated = self._keep_step(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._point_to_last(runner.work_dir)
        for old in outdated:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Write the part of a checkpoint that others need, named after its content."""
        checkpoint = load_weights_only(ckpt_path)
        file = BytesIO()
        torch.save({key: checkpoint[key] for key in self.published_keys if key in checkpoint}, file)
        content = file.getvalue()
        path = Path(ckpt_path)
        published = path.with_name(f'{path.stem}-{sha256(content).hexdigest()[:8]}.pth')
        with replacing(published) as part:
            part.write_bytes(content)
        runner.logger.info(f'{ckpt_path} is published as {published}')

    def _keep_step(self, runner: Runner, step: int) -> list[int]:
        """Note a step whose file is about to be written; return those whose files may go."""
        if self.max_keep_ckpts <= 0:
            return []
        kept = [old for old in self.keep_ckpt_ids if old != step]
        outdated = kept[: max(0, len(kept) + 1 - self.max_keep_ckpts)]
        self.keep_ckpt_ids.clear()
        self.keep_ckpt_ids.extend([*kept[len(outdated) :], step])
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return outdated

    @master_only
    def _point_to_last(self, work_dir: str) -> None:
        with replacing(Path(work_dir) / LAST) as part:
            part.write_text(str(self.last_ckpt))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Write the best checkpoint before the previous best is removed: mmengine removes first."""
        in_training = hasattr(self, 'file_backend')  # `Runner.val()` evaluates outside of one
        if not self.save_best or not in_training:
            return
        single = len(self.key_indicators) == 1
        before = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        self._set_best(dict.fromkeys(before))
        super()._save_best_checkpoint(runner, metrics)
        now = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        self._set_best({key: now[key] or old for key, old in before.items()})
        for key, old in before.items():
            if old and now[key] and old != now[key]:
                self._remove(old)

    def _set_best(self, paths: dict[str, str | None]) -> None:
        if '' in paths:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict.update(paths)

    @master_only
    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
