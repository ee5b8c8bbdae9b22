"""mmengine's Runner, with what EfficientDet's training needs of it and it does not have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODEL_WRAPPERS, RUNNERS
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from effdet_plugin.engine.resume import find_resume
from effdet_plugin.engine.sync_bn import can_sync_bn, to_sync_bn
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import load_weights_only

AUTO = 'auto'  # `resume`: from the newest checkpoint of the work dir
_SYNC_BN_CHOICES = (None, True, False, 'torch')


@RUNNERS.register_module()
class EfficientDetRunner(Runner):
    """Runner for several processes on GPUs or CPUs, and for files that stop half-way.

    - ``sync_bn`` of the config: None or True means BN synchronised over the processes wherever they
      can (NCCL on GPUs), by timm's converter; False means plain BN. Where BN is not synchronised,
      its statistics are averaged over the processes after each epoch.
    - Without a GPU, several processes train over gloo (mmengine asks CUDA for a device).
    - ``resume='auto'``, or True without ``load_from``, takes the newest checkpoint of the work dir
      that is whole. Where there is none the run starts anew, from ``load_from`` if that is given.
    - ImageNet weights are read only where no checkpoint replaces them.
    - Files that need unpickling are refused.

    A config asks for it by ``runner_type='EfficientDetRunner'``; mmengine's own Runner takes the
    same configs and does the first two differently.
    """

    _load_from: str | None
    _resume: bool | str
    syncs_bn: bool

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Start the processes' group over gloo where there is no GPU; else see mmengine."""
        on_cpu = self._launcher == 'pytorch' and not torch.cuda.is_available()
        if on_cpu and not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader[Any] | dict[str, Any],
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader[Any]:
        """Pin the memory of batches that go to a GPU, unless the config decides; see mmengine.

        Copies from other memory make the host wait.
        """
        if isinstance(dataloader, dict) and get_device() == 'cuda':
            dataloader = {'pin_memory': True, **dataloader}
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Synchronise BN, then wrap for several processes; see mmengine."""
        choice = self.cfg.get('sync_bn')
        if choice not in _SYNC_BN_CHOICES:
            raise ConfigError(f'sync_bn={choice!r} must be None, True or False')
        self.syncs_bn = self.distributed and choice is not False and can_sync_bn()
        if self.distributed and not is_model_wrapper(model):
            if self.syncs_bn:
                model = to_sync_bn(model)
            self._log_sync_bn(choice)
            if get_device() == 'cpu':
                model_wrapper_cfg = self._wrapper_on_cpu(model_wrapper_cfg)
        # mmengine would convert by its own, which drops timm's activations.
        hidden = {'sync_bn': self.cfg.pop('sync_bn')} if 'sync_bn' in self.cfg else {}
        try:
            return super().wrap_model(model_wrapper_cfg, model)
        finally:
            self.cfg.update(hidden)

    def _log_sync_bn(self, choice: Any) -> None:
        if self.syncs_bn:
            self.logger.info('BN is synchronised over all processes')
        else:
            reason = 'sync_bn=False' if choice is False else 'it works on GPUs only'
            self.logger.info(f'BN is not synchronised over the processes: {reason}')

    def _wrapper_on_cpu(self, model_wrapper_cfg: dict[str, Any] | None) -> dict[str, Any]:
        """Say explicitly that there is no device to choose; mmengine fills in a GPU's number."""
        wrapper = dict(
            model_wrapper_cfg
            or {
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
            }
        )
        kind = MODEL_WRAPPERS.get(wrapper.setdefault('type', 'MMDistributedDataParallel'))
        if issubclass(kind, DistributedDataParallel):
            wrapper.setdefault('device_ids', None)
        return wrapper

    def register_hooks(
        self,
        default_hooks: dict[str, Hook | dict[str, Any]] | None = None,
        custom_hooks: list[Hook | dict[str, Any]] | None = None,
    ) -> None:
        """Register a config's hooks, and one that averages BN statistics where that is needed."""
        super().register_hooks(default_hooks, custom_hooks)
        if self.distributed and not self.syncs_bn:
            self.register_hook({'type': 'SyncBuffersHook'})

    def _init_model_weights(self) -> None:
        """Initialise what no checkpoint is about to replace; see mmengine."""
        self._choose_checkpoint()
        if self._load_from is not None:
            skip_pretrained(self.model)
        super()._init_model_weights()

    def load_or_resume(self) -> None:
        """Load what there is to load; see mmengine."""
        self._choose_checkpoint()
        super().load_or_resume()

    def _choose_checkpoint(self) -> None:
        """Find what to go on from, the same in all processes; afterwards `_load_from` says it."""
        searching = self._resume == AUTO or (self._resume and self._load_from is None)
        if not searching or self._has_loaded:
            return
        found = [find_resume(self.work_dir)]
        broadcast_object_list(found)
        self._resume = found[0] is not None
        if self._resume:
            self._load_from = str(found[0])
        else:
            self.logger.info(f'{self.work_dir} holds no checkpoint to go on from: starting anew')

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable[..., Any] = 'cpu',
        strict: bool = False,
        revise_keys: list[tuple[str, str]] = [(r'^module.', '')],  # noqa: B006 (mmengine's)
    ) -> Any:
        """Load a checkpoint, if it holds nothing but tensors and plain types; see mmengine.

        Raises:
            CheckpointError: A local file that is missing, damaged or needs unpickling.
        """
        if '://' not in str(filename):
            load_weights_only(Path(filename).expanduser())
        return super().load_checkpoint(filename, map_location, strict, revise_keys)


def skip_pretrained(model: nn.Module) -> None:
    """Keep a built model from reading ImageNet weights that others are about to replace.

    This is done to the model and not in the config, which is dumped and must train again alone.
    """
    for module in model.modules():
        if getattr(module, 'pretrained', None):
            module.pretrained = False  # type: ignore[assignment]
        if isinstance(getattr(module, 'init_cfg', None), dict):
            init_cfg: Any = module.init_cfg
            if init_cfg.get('type') == 'Pretrained':
                module.init_cfg = None  # type: ignore[assignment]
