"""TensorBoard, W&B and MLflow, by mmengine's backends."""

import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import (
    BaseVisBackend,
    MLflowVisBackend,
    WandbVisBackend,
    force_init_env,
)

from effdet_plugin.errors import ConfigError, InstallError, pip_install

DEFAULT = 'tensorboard'  # where it is installed
_BACKENDS = {
    'tensorboard': 'TensorboardVisBackend',
    'wandb': 'WandbVisBackend',
    'mlflow': 'MLflowVisBackend',
}
_MLFLOW_PARAMS = 'train_cfg', 'optim_wrapper'  # of a config
_MLFLOW_NAME = re.compile(r'[^\w\-. /]')  # what its names may not have, such as the @ of AR@1


def add_backends(runner: Runner, names: Sequence[str] = ()) -> None:
    """Let a run log to these, and to TensorBoard where that is installed.

    The config does not change: a run may be resumed where they are not installed.

    Args:
        runner: Built.
        names: ``'tensorboard'``, ``'wandb'`` or ``'mlflow'``; ``'none'``: not even TensorBoard.

    Raises:
        ConfigError: Unknown name, or a service that refuses.
        InstallError: The package is missing.
    """
    check_backends(names)
    wanted = [name for name in names if name != 'none']
    if not names and find_spec(DEFAULT) is not None:
        wanted = [DEFAULT]
    if not is_main_process():
        return
    own: dict[str, Any] = runner.visualizer._vis_backends
    folder = Path(runner.log_dir) / 'vis_data'
    for name in wanted:
        kind = _BACKENDS[name]
        if kind not in own:
            more: dict[str, Any] = {}
            if name == 'wandb':
                more['init_kwargs'] = {'project': Path(runner.work_dir).name}
            if name == 'mlflow':
                more = _mlflow_options(Path(runner.work_dir))
            backend = VISBACKENDS.build({'type': kind, 'save_dir': str(folder), **more})
            try:
                _open(backend, runner.cfg)
            except Exception as error:  # of a service: no login, no server
                reason = f'{type(error).__name__}: {error}'.splitlines()[0]
                raise ConfigError(f'--log {name}: {reason}') from error
            own[kind] = backend


def _open(backend: BaseVisBackend, cfg: Config) -> None:
    """Connect to a service and hand it the config, so that what it refuses is known now."""
    if isinstance(backend, WandbVisBackend):  # whose add_config uploads all code below this folder
        backend.experiment.config.update(cfg.to_dict())
    elif isinstance(backend, MLflowBackend):
        backend.add_config(cfg)


def close_backends(runner: Runner) -> None:
    """End what a training that failed has left open: the next one would go on with it."""
    for backend in getattr(runner.visualizer, '_vis_backends', {}).values():
        if isinstance(backend, WandbVisBackend | MLflowBackend):
            backend.close()


def _mlflow_options(work_dir: Path) -> dict[str, Any]:
    """Return where MLflow writes: to the server that its variable names, else beside the work dir.

    mmengine's own default, a folder of files, is refused by MLflow 3.17.
    """
    options: dict[str, Any] = {
        'type': MLflowBackend,
        'exp_name': work_dir.name,
        'tracking_uri': os.environ.get('MLFLOW_TRACKING_URI'),
        'artifact_suffix': ('.log', '.py'),  # no .json: annotations may be large
    }
    if not options['tracking_uri']:
        parent = work_dir.resolve().parent
        options['tracking_uri'] = f'sqlite:///{parent.as_posix()}/mlflow.db'
        options['artifact_location'] = (parent / 'mlartifacts' / work_dir.name).as_uri()
    return options


def check_backends(names: Sequence[str]) -> None:
    """Check that a run can log to these; see `add_backends`."""
    for name in names:
        if name not in (*_BACKENDS, 'none'):
            raise ConfigError(f'--log {name}: choose one of {", ".join(_BACKENDS)}, none')
        if name != 'none' and find_spec(name) is None:
            raise InstallError(f'--log {name}: not installed: {pip_install(name)}')


class MLflowBackend(MLflowVisBackend):
    """mmengine's backend, with names and settings that MLflow takes.

    The whole config is stored as a file; as parameters only what settings of a training are
    compared by, since MLflow refuses long values and names with other signs.
    """

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Store the config, and its training settings as parameters."""
        self._tracked_config_keys = [key for key in _MLFLOW_PARAMS if config.get(key)]
        super().add_config(config, **kwargs)

    def _flatten(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return parameters by names that MLflow takes."""
        found = super()._flatten(*args, **kwargs)
        return {_MLFLOW_NAME.sub('_', name): value for name, value in found.items()}

    @force_init_env
    def add_image(self, name: str, image: Any, step: int = 0, **kwargs: Any) -> None:
        """Store an RGB image ``(h, w, 3)`` uint8 of a step as ``NAME/STEP.png``."""
        self._mlflow.log_image(image, f'{name}/{step}.png')

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Store a number of a step."""
        self.add_scalars({name: value}, step)

    def add_scalars(
        self,
        scalar_dict: Mapping[str, Any],
        step: int = 0,
        file_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Store numbers of a step."""
        renamed = {_MLFLOW_NAME.sub('_', name): float(x) for name, x in scalar_dict.items()}
        super().add_scalars(renamed, step, file_path, **kwargs)
