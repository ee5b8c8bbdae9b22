"""The step after a training: files for devices, evaluated as their runtime will see images."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from effdet_plugin.config import parse_options
from effdet_plugin.errors import ConfigError
from effdet_plugin.export.api import FORMATS, Options, export
from effdet_plugin.export.extras import check_installed
from effdet_plugin.trained_model import load_trained
from effdet_plugin.training.evaluate import TestSettings, evaluate
from effdet_plugin.training.reporting import best_checkpoint
from effdet_plugin.training.settings import TrainSettings

# Of each format: a file for each of these.
PRECISIONS = {'tflite': ('fp32', 'int8')}
_AP50 = 'bbox_mAP_50'


def check_export(settings: TrainSettings, form: str) -> None:
    """Check before a training that its export can be done.

    Args:
        settings: Of the training.
        form: Format of the files.

    Raises:
        ConfigError: Unknown format, or several processes.
        InstallError: A package is missing.
    """
    known = [name for name in FORMATS if name != 'tensorrt']  # nothing evaluates its files here
    if form not in known:
        raise ConfigError(f'--export {form}: choose one of {", ".join(known)}')
    if settings.launcher != 'none':
        raise ConfigError('--export: not with several processes; run tools/export.py afterwards')
    check_installed(form)


def export_trained(settings: TrainSettings, cfg: Config, form: str) -> Iterator[str]:
    """Export the best checkpoint of a training; yield a line for each step and file.

    Args:
        settings: Of the training that has ended.
        cfg: Its config, as `effdet_plugin.training.train` returns it.
        form: Format of the files.

    Raises:
        UserError: The export or the evaluation cannot be done.
    """
    checkpoint = best_checkpoint(Path(cfg.work_dir))
    yield f'exporting {checkpoint}'
    trained = load_trained(cfg, checkpoint, 'cpu')
    for precision in PRECISIONS.get(form, ('fp32',)):
        out = checkpoint.with_name(f'{checkpoint.stem}_{precision}{FORMATS[form]}')
        lines: list[str] = []
        export(trained, out, Options(form, precision=precision), lines.append)
        yield from (line for line in lines if not line.startswith('folding'))
        metrics = evaluate(_test_settings(settings, out))
        ap50 = next(value for name, value in metrics.items() if name.endswith(_AP50))
        yield f'{out}: {out.stat().st_size / 1e6:.1f} MB, AP50 {ap50:.3f}'


def _test_settings(settings: TrainSettings, file: Path) -> TestSettings:
    """Return the evaluation of a file on the data of a training."""
    if settings.data is not None:
        return TestSettings(None, str(file), settings.data)
    options = parse_options(settings.cfg_options or {})
    own = {key: value for key, value in options.items() if not key.startswith('model')}
    return TestSettings(settings.config, str(file), cfg_options=own)
