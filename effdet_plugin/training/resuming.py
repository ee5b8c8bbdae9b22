"""Refuse a resume that cannot be exact before anything is written."""

import copy
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from effdet_plugin.engine.continuing import check_continues
from effdet_plugin.engine.resume import check_resumable, find_resume
from effdet_plugin.engine.runner import AUTO

_OPTIMIZER_KEYS = ('optimizer', 'constructor', 'paramwise_cfg')


def check_resume(cfg: Config) -> None:
    """Check that the checkpoint that a run would be resumed from is of its config's training.

    The runner checks it, too, but has made its log folder by then.

    Args:
        cfg: Complete config; its network and optimizer are built for a comparison.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another network, optimizer or average.
    """
    path = _checkpoint(cfg)
    if path is None:
        return
    checkpoint = check_resumable(path)
    # What is built is logged by the runner, which builds it again.
    logger = MMLogger.get_current_instance()
    logger.disabled = True
    try:
        _compare(path, checkpoint, cfg)
    finally:
        logger.disabled = False


def _compare(path: Path, checkpoint: dict[str, Any], cfg: Config) -> None:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        model = MODELS.build(copy.deepcopy(cfg.model))
        # Without the wrapper itself, which may need a GPU.
        settings = {k: v for k, v in cfg.optim_wrapper.items() if k in _OPTIMIZER_KEYS}
        if 'optimizer' not in settings:  # several optimizers
            return
        wrapper = build_optim_wrapper(model, copy.deepcopy({'type': 'OptimWrapper', **settings}))
        hooks = [HOOKS.get(hook['type']) for hook in cfg.get('custom_hooks') or []]
    has_average = any(isinstance(hook, type) and issubclass(hook, EMAHook) for hook in hooks)
    check_continues(path, checkpoint, model, wrapper, has_average)


def _checkpoint(cfg: Config) -> Path | None:
    """Return the file that the runner will choose; None if there is none, or it is an address."""
    load_from = cfg.get('load_from')
    if cfg.resume == AUTO or not load_from:
        return find_resume(cfg.work_dir, log=False)
    return None if '://' in str(load_from) else Path(load_from).expanduser()
