"""mmengine's Runner, with what EfficientDet's training needs and they do not have."""

import ctypes
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODEL_WRAPPERS, RUNNERS
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from effdet_plugin.config import tell_differences
from effdet_plugin.config.embedded import EMBEDDED
from effdet_plugin.download import WEB, local_path
from effdet_plugin.engine.ema import RampUpEMAHook, count_updates
from effdet_plugin.engine.load_weights import (
    check_finite,
    fetch_pretrained,
    refusals_are_told,
    skip_pretrained,
)
from effdet_plugin.engine.one_run import end_with_parent, only_run
from effdet_plugin.engine.optim import batches_per_update, check_scaling
from effdet_plugin.engine.resume import (
    Resumable,
    check_continues,
    newest_resumable,
    write_config,
)
from effdet_plugin.engine.schedule import check_schedules
from effdet_plugin.engine.stopping import ContinuedTrainLoop
from effdet_plugin.errors import CheckpointError, ConfigError, UserError
from effdet_plugin.weights_only import (
    load_weights_only,
    weights_of,
    weights_only_loads,
)

AUTO = 'auto'  # `resume`: from the newest checkpoint of the work dir
_SYNC_BN_CHOICES = (None, True, False, 'torch')
_OF_WORKERS = ('persistent_workers', 'prefetch_factor')
# Parameters of mallopt (glibc, malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 << 20


@RUNNERS.register_module()
class EfficientDetRunner(Runner):
    """mmengine's ``Runner`` for several processes on GPUs or CPUs, and for interrupted runs.

    - ``sync_bn`` of the config: None or True means BN synchronised over the processes wherever that
      works (NCCL on GPUs), by timm's converter; False means plain BN. Where BN is not synchronised,
      its statistics are averaged over the processes after each epoch.
    - Without a GPU, several processes train over gloo (mmengine asks CUDA for a device).
    - ``resume='auto'``, or True without ``load_from``, takes the newest undamaged checkpoint of the
      work dir. Where there is none the run starts from the beginning, from ``load_from`` if given.
    - ImageNet weights are read only where no checkpoint replaces them.
    - Files that need unpickling are refused, also where mmengine, mmdet or timm load them.
    - A training writes its config as plain data, too (``config.json``), and holds a lock of its
      work dir. Its processes end with the process that has started them.
    - With gradient accumulation the learning rate follows the effective batch size, and each epoch
      ends with an update.

    A config asks for it by ``runner_type='EfficientDetRunner'``; mmengine's own Runner takes the
    same configs and does the first two differently.
    """

    _load_from: str | None
    _resume: bool | str
    syncs_bn: bool
    already_read: Resumable | None = None  # what a check has read, so that it is read once

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with weights_only_loads():  # for loaders of mmengine, mmdet and timm that never ask us
            super().__init__(*args, **kwargs)

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Start the process group over gloo where there is no GPU; else see mmengine."""
        on_cpu = self._launcher == 'pytorch' and not torch.cuda.is_available()
        if self._launcher == 'pytorch':
            end_with_parent()
        # mmengine joins a group that exists already, and else sets a CUDA device for it.
        if on_cpu and not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Let a log file that cannot be written end the run; see mmengine."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = _reraise  # type: ignore[method-assign]
        return logger

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader[Any] | dict[str, Any],
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader[Any]:
        """Pin the memory of batches that go to a GPU, unless the config decides; see mmengine.

        Copies from other memory make the host wait. With ``num_workers=0`` what the config says of
        workers is dropped: PyTorch refuses it, and the configs set it.
        """
        if isinstance(dataloader, dict):
            pinned = {'pin_memory': True} if get_device() == 'cuda' else {}
            of_workers = () if dataloader.get('num_workers') else _OF_WORKERS
            dataloader = {**pinned, **{k: v for k, v in dataloader.items() if k not in of_workers}}
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Synchronise BN, then wrap for several processes; see mmengine."""
        choice = self.cfg.get('sync_bn')
        if choice not in _SYNC_BN_CHOICES:
            raise ConfigError(f'sync_bn={choice!r} must be None, True or False')
        self.syncs_bn = self.distributed and choice is not False and torch.cuda.is_available()
        if self.distributed and not is_model_wrapper(model):
            if self.syncs_bn:
                # The converters of torch and mmengine silently drop the activation that timm's
                # BatchNormAct2d applies behind its BN.
                model = convert_sync_batchnorm(model)
                self.logger.info('BN is synchronised over all processes')
            else:
                reason = 'sync_bn=False' if choice is False else 'it works on GPUs only'
                self.logger.info(f'BN is not synchronised over the processes: {reason}')
            if get_device() == 'cpu':
                model_wrapper_cfg = self._wrapper_on_cpu(model_wrapper_cfg)
        # Hidden from mmengine, which would convert a second time, by its own converter.
        hidden = {'sync_bn': self.cfg.pop('sync_bn')} if 'sync_bn' in self.cfg else {}
        try:
            return super().wrap_model(model_wrapper_cfg, model)
        finally:
            self.cfg.update(hidden)

    def _wrapper_on_cpu(self, model_wrapper_cfg: dict[str, Any] | None) -> dict[str, Any]:
        """Say explicitly that there is no device to choose; mmengine fills in a GPU's number."""
        wrapper = dict(
            model_wrapper_cfg
            or {
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
            }
        )
        wrapper_type = MODEL_WRAPPERS.get(wrapper.setdefault('type', 'MMDistributedDataParallel'))
        if issubclass(wrapper_type, DistributedDataParallel):
            wrapper.setdefault('device_ids', None)
        return wrapper

    def build_train_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the loop; one over epochs can begin in the middle of one. See mmengine."""
        if isinstance(loop, dict) and loop.get('type') == 'EpochBasedTrainLoop':
            loop = {**loop, 'type': ContinuedTrainLoop}
        return super().build_train_loop(loop)

    def register_hooks(
        self,
        default_hooks: dict[str, Hook | dict[str, Any]] | None = None,
        custom_hooks: list[Hook | dict[str, Any]] | None = None,
    ) -> None:
        """Register a config's hooks, and those that every training needs; see the class."""
        super().register_hooks(default_hooks, custom_hooks)
        for hook in self.hooks:
            if isinstance(hook, EMAHook) and not isinstance(hook, RampUpEMAHook):
                count_updates(hook)
        self.register_hook({'type': 'WholeEpochHook'})
        if self.distributed and not self.syncs_bn:
            self.register_hook({'type': 'SyncBuffersHook'})

    def train(self) -> nn.Module:
        """Write the config as plain data, then train; see mmengine.

        An evaluation does not write it: its config may say what the training's did not.

        Raises:
            UserError: Another run is in progress in the work dir.
        """
        with weights_only_loads():
            if not is_main_process():
                return super().train()
            with only_run(self.work_dir):
                write_config(self.work_dir, self.cfg)
                return super().train()

    def val(self) -> Any:
        """Evaluate on the validation data; see mmengine."""
        with weights_only_loads():
            return super().val()

    def test(self) -> Any:
        """Evaluate on the test data; see mmengine."""
        with weights_only_loads():
            return super().test()

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None
    ) -> None:
        """Scale the rate by the effective batch size; mmengine leaves accumulation out."""
        scaling = check_scaling(auto_scale_lr)
        batches = batches_per_update(optim_wrapper)
        if isinstance(self._train_loop, EpochBasedTrainLoop):
            batches = min(batches, len(self.train_dataloader))  # an epoch ends with an update
        if batches > 1 and scaling.get('enable'):
            self.logger.info(f'LR is set for the {batches} batches of an update:')
            scaling = {**scaling, 'base_batch_size': scaling['base_batch_size'] / batches}
        super().scale_lr(optim_wrapper, scaling or None)

    def _init_model_weights(self) -> None:
        """Initialise what no checkpoint is about to replace; see mmengine."""
        self._choose_checkpoint()
        if self._load_from is not None:
            skip_pretrained(self.model)
        fetch_pretrained(self.model)
        with refusals_are_told('init_cfg'):
            super()._init_model_weights()
        check_finite(self.model.state_dict(), 'the initial weights (init_cfg, pretrained)')

    def load_or_resume(self) -> None:
        """Load what there is to load; see mmengine."""
        self._choose_checkpoint()
        super().load_or_resume()

    def _choose_checkpoint(self) -> None:
        """Set `_load_from` to the checkpoint to resume from, the same in all processes."""
        searching = self._resume == AUTO or (self._resume and self._load_from is None)
        if not searching or self._has_loaded:
            return
        # Each process searches, but the first decides: files may change between two looks.
        self.already_read = self.already_read or newest_resumable(self.work_dir)
        found = [None if self.already_read is None else self.already_read.path]
        broadcast_object_list(found)
        self._resume = found[0] is not None
        if self._resume:
            self._load_from = str(found[0])
        else:
            self.logger.info(f'{self.work_dir} holds no checkpoint to resume from: a new run')

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable[..., Any] = 'cpu',
        strict: bool = False,
        revise_keys: list[tuple[str, str]] = [(r'^module.', '')],  # noqa: B006 (mmengine's)
    ) -> Any:
        """Load a checkpoint, if it holds nothing but tensors and plain types; see mmengine.

        Raises:
            CheckpointError: A local file that is missing, damaged or needs unpickling, or that is
                of another training than the one to be resumed.
        """
        is_web = str(filename).startswith(WEB)
        if not is_web and '://' in str(filename):
            with refusals_are_told(filename):  # mmengine's own names, of its own addresses
                loaded = super().load_checkpoint(filename, map_location, strict, revise_keys)
            check_finite(loaded, filename)
            return loaded
        path = local_path(filename) if is_web else Path(filename).expanduser()
        checkpoint = self._take(path) or load_weights_only(path, map_location)
        meta = checkpoint.get('meta') or {}
        if not isinstance(meta, dict):
            raise CheckpointError(f'{path}: its meta is a {type(meta).__name__}, not a dict')
        # mmengine executes it as a Python file when a run is resumed.
        if (embedded := meta.pop(EMBEDDED, None)) is not None:
            tell_differences(embedded, self.cfg)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        if self._resume and isinstance(self.optim_wrapper, OptimWrapper):
            has_average = any(isinstance(hook, EMAHook) for hook in self.hooks)
            check_continues(filename, checkpoint, model, self.optim_wrapper, has_average)
            with _named(path):
                check_schedules(checkpoint, self.param_schedulers)
        with _named(path):
            weights_of(checkpoint)  # checks that they are tensors by name
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        _load_checkpoint_to_model(model, checkpoint, strict, revise_keys=revise_keys)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def _take(self, path: Path) -> dict[str, Any] | None:
        known, self.already_read = self.already_read, None
        return known.take() if known is not None and known.path == path else None

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint; see mmengine.

        Raises:
            CheckpointError: The file cannot be read, or its state is none of a training.
        """
        try:
            super().resume(filename, *args, **kwargs)
        except (UserError, torch.cuda.OutOfMemoryError):
            raise
        except (LookupError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
            raise CheckpointError(
                f'{filename}: no run can be resumed from it ({reason}); start a new run from its '
                f'weights by --cfg-options load_from={filename}'
            ) from error


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in the line of what does not fit."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None


def _reraise(record: logging.LogRecord) -> None:
    """Raise what a log handler has met; logging prints a traceback and lets the run continue."""
    raise  # logging calls it in an except block


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in the process: CPU training becomes about a third faster.

    By default every large tensor gets new pages from the kernel, which zeroes each of them: on
    one core a step of Lite0 (320 px, 8 images) took 2.35 CPU seconds so and 1.55 without. The
    process keeps its peak memory until it ends. Only for tools that train.

    Returns:
        Whether this machine's C library has such a setting.
    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:  # musl
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(*setting) == 1 for setting in settings)
