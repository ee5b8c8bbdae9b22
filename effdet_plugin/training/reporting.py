"""From a runner to the report of its evaluation, and the commands that come next."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from effdet_plugin.config import find_sizes
from effdet_plugin.config.dataset_nodes import source_nodes
from effdet_plugin.errors import CheckpointError
from effdet_plugin.evaluation import CocoTwelveMetric
from effdet_plugin.export.api import FORMATS
from effdet_plugin.report import Detections, Facts, collect

# Of a command the script in a clone's tools/.
_SCRIPTS = {'predict': 'infer', 'check': 'check_dataset', 'models': 'model_table'}


def kept_metric(evaluator: Any) -> CocoTwelveMetric | None:
    """Let the evaluator keep what it evaluates; return its metric, None if it has no such.

    Args:
        evaluator: mmengine's.
    """
    for metric in getattr(evaluator, 'metrics', []):
        if isinstance(metric, CocoTwelveMetric):
            metric.keeps = True
            return metric
    return None


def facts_of(metric: CocoTwelveMetric, found: Detections | None = None) -> Facts | None:
    """Return the facts of what a metric has kept; None where it has kept nothing.

    Args:
        metric: Of the first process.
        found: Other detections in the same images.
    """
    kept = metric.kept
    if kept is None or not kept.coco.anns:
        return None
    return collect(kept.coco, found or Detections.of(kept), kept.classes, kept.category_ids)


def image_folder(dataset: ConfigDict) -> Path:
    """Return what the names of the images in a dataset's annotations are relative to."""
    for node in source_nodes(dataset):
        prefix = (node.get('data_prefix') or {}).get('img') or ''
        return Path(node.get('data_root') or '') / prefix
    return Path()


def size_in_words(dataset: ConfigDict) -> str:
    """Return the input size of a dataset as WIDTHxHEIGHT; ``as the images`` without one."""
    for _, (height, width) in find_sizes(dataset):
        return f'{width}x{height}'
    return 'as the images'


def command(name: str, *words: object) -> str:
    """Return a command line, of the same program as this one was started by.

    Args:
        name: Of the command: ``predict``, ``export`` ...
        words: What follows.
    """
    program = Path(sys.argv[0])
    if program.name == '__main__.py':
        start = ['python', '-m', 'effdet_plugin', name]
    elif program.suffix == '.py' and program.parent.name == 'tools':
        start = [str(program.with_name(f'{_SCRIPTS.get(name, name)}.py'))]
    elif program.name == 'efficientdet':
        found = shutil.which(program.name)
        is_in_path = found is not None and Path(found).resolve() == program.resolve()
        start = [program.name if is_in_path else str(program), name]
    else:  # imported by a program of the person's own
        start = ['efficientdet', name]
    return shlex.join([*start, *map(str, words)])


def best_checkpoint(folder: Path) -> Path:
    """Return the best checkpoint of a work dir, else its newest.

    Raises:
        CheckpointError: There is none.
    """
    found = list(folder.glob('best_*.pth')) or list(folder.glob('*.pth'))
    newest = sorted(found, key=lambda path: path.stat().st_mtime)
    if not newest:
        raise CheckpointError(f'{folder}: the training has written no checkpoint')
    return newest[-1]


def next_command(cfg: Config, form: str = 'tflite') -> str:
    """Return the command that exports a training's best checkpoint; '' without one.

    Args:
        cfg: Of the training.
        form: Format to write.
    """
    try:
        checkpoint = best_checkpoint(Path(cfg.work_dir))
    except CheckpointError:
        return ''
    out = checkpoint.with_suffix(FORMATS[form])
    others = [one for one in ('onnx', 'openvino', 'tflite') if one != form]
    line = command('export', checkpoint, '--format', form, '--out', out)
    return f'{line}    # or {", ".join(others)}'
