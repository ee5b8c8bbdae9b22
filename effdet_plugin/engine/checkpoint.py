"""Checkpoints: written atomically, loaded with ``weights_only=True``, complete for a resume."""

import hashlib
import random
from collections import deque
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, get_rank, is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import EpochBasedTrainLoop, Runner

from effdet_plugin import __version__
from effdet_plugin.config.embedded import EMBEDDED, embed
from effdet_plugin.engine.optim import batches_per_update
from effdet_plugin.engine.schedule import SCHEDULES, schedule_types
from effdet_plugin.errors import ConfigError, UserError
from effdet_plugin.files import remove_parts, replacing, write_atomically
from effdet_plugin.weights_only import first_not_finite, is_finite, load_weights_only

OPTIMIZER = 'optimizer_type'  # key of a checkpoint's meta
LAST = 'last_checkpoint'  # mmengine's name of the file that names the newest checkpoint
INTERRUPTED = 'interrupted.pth'  # of a run that was stopped in the middle of an epoch
# Their values are tensors already, and torch needs the metadata of its own dict class.
# What the random generators raise of a state that is none.
_DAMAGED_STATE = (
    LookupError, AttributeError, RuntimeError, TypeError, ValueError, OverflowError,
)  # fmt: skip
_STATE_DICTS = ('state_dict', 'ema_state_dict')
_HISTORY = 'history_buffer'  # marks a dict that was a HistoryBuffer
# bool before int, of which it is a subclass.
_SCALARS: tuple[Any, ...] = (bool, int, float, complex, str, bytes)


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """mmengine's local files, written atomically: ``backend_args=dict(backend='atomic')``."""

    def put(self, obj: bytes, filepath: Path | str) -> None:
        """Write bytes to a file."""
        with replacing(filepath) as part:
            part.write_bytes(obj)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against an interruption at any moment.

    - Files are written atomically, and an old file is removed only after its successor is written.
    - Weights that are not finite are not written: the training stops.
    - Files load with ``torch.load(weights_only=True)``, which runs no code.
    - Files hold the random state, so that a resumed run equals an uninterrupted one: the same
      images (by `EpochSampler`), learning rate, moving average and drop-connect.

    Args:
        interval: Epochs between checkpoints.
        **kwargs: Other arguments of ``CheckpointHook``. ``by_epoch=False`` is for iteration-based
            loops: an epoch cannot be resumed in its middle.
    """

    keep_ckpt_ids: deque[int]

    def __init__(self, interval: int = 1, **kwargs: Any) -> None:
        kwargs.setdefault('backend_args', {'backend': 'atomic'})
        super().__init__(interval, **kwargs)
        self.random_states: list[dict[str, Any]] = []  # of each process, at the last epoch's end
        self._first = 0  # batch that a resumed epoch begins with

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and remove temporary files that a killed process has left there."""
        if not self.by_epoch and isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError(
                'by_epoch=False of the checkpoint hook writes files in the middle of an epoch, '
                'where a run cannot be resumed; use by_epoch=True or an IterBasedTrainLoop'
            )
        batches = batches_per_update(runner.optim_wrapper)
        if not self.by_epoch and self.interval > 0 and self.interval % batches:
            raise ConfigError(
                f'interval={self.interval} of the checkpoint hook is no multiple of '
                f'accumulative_counts={batches}: a checkpoint between two updates would lose '
                'gradients'
            )
        super().before_train(runner)
        if is_main_process():
            for part in remove_parts(self.out_dir):
                runner.logger.info(f'Removed {part}: its writer was stopped')

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any | None = None
    ) -> None:
        """Restore the random state of the last epoch's end.

        An evaluation draws random numbers, and so does each start of a data loader: without this, a
        resumed run would continue with other numbers than an uninterrupted one. It is done with
        the first batch, when the loader has drawn its own.
        """
        if batch_idx != self._first or not self.random_states:
            return
        self._first = 0
        if get_rank() < len(self.random_states):
            try:
                restore_random_state(self.random_states[get_rank()])
            except _DAMAGED_STATE as error:
                reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:100]
                runner.logger.warning(
                    f'The random state in the checkpoint is damaged ({reason}): random numbers '
                    'restart here'
                )
        else:
            runner.logger.warning(
                'The checkpoint was written by fewer processes: random numbers restart here'
            )

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the checkpoint of the epoch."""
        # All processes gather, though only the first writes: each has a state of its own.
        self.random_states = all_gather_object(random_state())
        super().after_train_epoch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add what mmengine leaves out, and convert what needs unpickling.

        Raises:
            UserError: A weight is NaN or infinite.
        """
        if name := first_not_finite(checkpoint) or first_bad_state(checkpoint):
            raise UserError(
                f'the weights are not finite after step {runner.iter}: {name} holds NaN or '
                'infinity; no checkpoint of them is written; try a lower learning rate or a longer '
                'warm-up, and resume by --resume'
            )
        checkpoint['random_states'] = self.random_states
        checkpoint['meta']['effdet_plugin_version'] = __version__
        checkpoint['meta'][EMBEDDED] = embed(runner.cfg)
        optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
        checkpoint['meta'][OPTIMIZER] = type(optimizer).__name__
        checkpoint['meta'][SCHEDULES] = schedule_types(runner.param_schedulers)
        for key in checkpoint.keys() - _STATE_DICTS:
            checkpoint[key] = to_weights_only(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the state of the training from a checkpoint, if the run is resumed from it."""
        # mmengine's Runner executes it as a Python file when it resumes.
        checkpoint.get('meta', {}).pop(EMBEDDED, None)
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = from_weights_only(checkpoint['message_hub'])
        if not runner._resume:
            return
        states = checkpoint.get('random_states', [])
        self.random_states = states if isinstance(states, list) else [states]
        # The loader was built before the checkpoint was read, with the seed of this start.
        reseed = getattr(runner.train_dataloader.sampler, 'reseed', None)
        seed = checkpoint['meta'].get('seed')
        if reseed is not None and seed is not None:
            reseed(seed)
        self._skip(runner, checkpoint['meta'].get('batches', 0))

    def _skip(self, runner: Runner, batches: Any) -> None:
        """Begin the next epoch after some of its batches."""
        loader = runner.train_dataloader
        skip = getattr(loader.sampler, 'skip', None)
        if skip is None or not hasattr(runner.train_loop, 'skipped'):
            return
        if not isinstance(batches, int) or not 0 < batches < len(loader):
            return
        skip(batches * (loader.batch_size or 1))
        self._first = runner.train_loop.skipped = batches

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Write a checkpoint, then its name, then remove outdated ones; mmengine removes first."""
        outdated: list[int] = []
        if self.max_keep_ckpts > 0:
            # The best checkpoint makes mmengine write an epoch's file a second time.
            steps = [*(old for old in self.keep_ckpt_ids if old != step), step]
            outdated, kept = steps[: -self.max_keep_ckpts], steps[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept)
            runner.message_hub.update_info('keep_ckpt_ids', kept)
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
        # A killed process leaves the old name here or the new one, both of which exist.
        if is_main_process():
            with replacing(Path(runner.work_dir) / LAST) as part:
                part.write_text(str(self.last_ckpt))
            self._remove(self.file_backend.join_path(self.out_dir, INTERRUPTED))
        for old in outdated:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Write the best checkpoint, then remove the previous best; mmengine removes first."""
        if not hasattr(self, 'file_backend'):  # `Runner.val()` evaluates outside of a training
            return
        outdated: list[str] = []
        # A process that is killed between mmengine's two steps would leave no best file.
        self.file_backend.remove = outdated.append
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            del self.file_backend.remove
        best = {getattr(self, 'best_ckpt_path', None)}
        best |= {*getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in outdated:
            if path not in best:  # a resumed run may write a file of the same name again
                self._remove(path)

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Write the part of a checkpoint that others need, named after its content."""
        checkpoint = load_weights_only(ckpt_path)
        file = BytesIO()
        torch.save({key: checkpoint[key] for key in self.published_keys if key in checkpoint}, file)
        content = file.getvalue()
        path = Path(ckpt_path)
        digest = hashlib.sha256(content).hexdigest()[:8]
        write_atomically(path.with_name(f'{path.stem}-{digest}.pth'), content)
        runner.logger.info(f'{ckpt_path} is published as {path.stem}-{digest}.pth')

    @master_only
    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)


def first_bad_state(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the name of the first number of an optimizer that is NaN or infinite; None if none is.

    The weights may be finite all the same: Adam's second moment overflows, and its weight stays
    where it is from then on.

    Args:
        checkpoint: With the state of an optimizer in its ``optimizer``, or without.
    """
    pending: list[tuple[str, Any]] = [('optimizer', checkpoint.get('optimizer'))]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [(f'{name}.{key}', part) for key, part in [*value.items()][::-1]]
        elif isinstance(value, list | tuple):
            pending += [(f'{name}.{place}', part) for place, part in enumerate(value)]
        elif isinstance(value, torch.Tensor | float) and not is_finite(torch.as_tensor(value)):
            return name
    return None


def random_state() -> dict[str, Any]:
    """Return the state of this process's random generators, as tensors and plain types."""
    state: dict[str, Any] = {
        'torch': torch.get_rng_state(),
        'numpy': to_weights_only(np.random.get_state(legacy=False)),
        'python': random.getstate(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Set this process's random generators to a state of `random_state`."""
    # The generators take tensors of the CPU, wherever the checkpoint was loaded to.
    torch.set_rng_state(state['torch'].cpu())
    twister = dict(state['numpy']['state'])
    # numpy's words are uint32, for which torch has no type to compute in: they were saved as int64.
    twister['key'] = twister['key'].cpu().numpy().astype(np.uint32)
    np.random.set_state({**state['numpy'], 'state': twister})
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def to_weights_only(value: Any) -> Any:
    """Return ``value`` as tensors and plain types, which ``torch.load(weights_only=True)`` reads.

    Arrays become tensors, scalars of numpy those of Python, ``HistoryBuffer`` (mmengine's record
    of a logged number) a dict of two tensors that `from_weights_only` converts back. Anything else
    (paths, config objects) becomes its text.
    """
    if value is None or isinstance(value, torch.Tensor):
        return None if value is None else value.detach()
    for scalar in _SCALARS:  # numpy's floats and enums are subclasses
        if isinstance(value, scalar):
            return value if type(value) is scalar else scalar(value)
    if isinstance(value, HistoryBuffer):
        history, counts = (torch.as_tensor(np.asarray(data)) for data in value.data)
        return {_HISTORY: value.max_length, 'values': history, 'counts': counts}
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biufc':
        # torch computes with no unsigned type but uint8.
        is_wide = value.dtype.kind == 'u' and value.dtype.itemsize > 1
        return torch.as_tensor(value.astype(np.int64) if is_wide else value)
    # Scalars of numpy, and arrays of strings or objects.
    if isinstance(value, np.ndarray | np.generic):
        return to_weights_only(value.tolist())
    if isinstance(value, Mapping):
        return {to_weights_only(key): to_weights_only(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return (list if isinstance(value, list) else tuple)(to_weights_only(v) for v in value)
    return str(value)


def from_weights_only(value: Any) -> Any:
    """Convert each ``HistoryBuffer`` of `to_weights_only` back, at any depth."""
    if isinstance(value, Mapping):
        if _HISTORY in value:
            values, counts = value['values'].cpu().numpy(), value['counts'].cpu().numpy()
            return HistoryBuffer(values, counts, value[_HISTORY])
        return {key: from_weights_only(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_weights_only(item) for item in value]
    return value
