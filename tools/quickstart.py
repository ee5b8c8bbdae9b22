#!/usr/bin/env python3
"""Train a small detector on synthetic scenes and draw its predictions; quickstart.sh sets up first.

    tools/quickstart.py                        # writes to work_dirs/quickstart/run_N
    tools/quickstart.py --out DIR --image-size 320

Every call is a new run and keeps the earlier ones; the scenes are drawn once.
"""

import io
import os
import time
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from _bootstrap import ROOT, add_config_options, make_parser, run

if TYPE_CHECKING:
    from effdet_plugin.training import TrainSettings

CONFIG = ROOT / 'configs' / 'efficientdet' / 'quickstart.py'
OWN_DATA = '.venv/bin/python tools/train.py --data DIR'
SCORE_THR = 0.4  # of the predictions that are drawn


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('--out', type=Path, default=Path('work_dirs/quickstart'), help='output dir (%(default)s)')
    add('--train-scenes', type=int, default=320, help='number of training images (%(default)s)')
    add('--val-scenes', type=int, default=64, help='number of validation images (%(default)s)')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Draw the scenes, train, evaluate, draw predictions."""
    args = parse_args()
    started = time.monotonic()
    limit_threads()
    print('quickstart: loading PyTorch and MMDetection', flush=True)
    from effdet_plugin.demo import make_scenes

    scenes = make_scenes(args.out / 'scenes', args.train_scenes, args.val_scenes)
    run_dir = new_run_dir(args.out)
    print(f'quickstart: {args.train_scenes} training scenes; log in {run_dir}', flush=True)
    metrics = train(settings(args, scenes, run_dir))
    predictions = draw(run_dir, scenes)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(
        f'\nAP {metrics["mAP"]:.3f}, AP50 {metrics["mAP_50"]:.3f} on {args.val_scenes} held-out '
        f'scenes, after {minutes}:{seconds:02d} minutes'
        f'\npredictions beside the ground truth: {predictions}'
        f'\n\nNext, your own images (a folder DIR with COCO, Pascal VOC, YOLO or csv labels):'
        f'\n  {OWN_DATA}'
    )


def limit_threads() -> None:
    """Use half of the cores, at most four, unless ``OMP_NUM_THREADS`` is set.

    It has an effect only before torch is imported.

    A step of a small network is a thousand short kernels. If other programs use the cores, every
    kernel waits for its slowest thread: on two busy cores a step took 1.9 to 4.2 s with two
    threads, 0.5 s with two that sleep while they wait, and 0.3 s with one.
    """
    cores = os.cpu_count() or 1
    os.environ.setdefault('OMP_NUM_THREADS', str(min(max(cores // 2, 1), 4)))
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def new_run_dir(parent: Path) -> Path:
    """Make the first folder of run_1, run_2, ... that does not exist."""
    number = 1
    while True:
        run_dir = parent / f'run_{number}'
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return run_dir


def settings(args: Namespace, scenes: Path, run_dir: Path) -> 'TrainSettings':
    """Return the settings of the training."""
    from effdet_plugin.training import TrainSettings

    root = f'{scenes.as_posix()}/'
    loaders = ('train_dataloader', 'val_dataloader')
    paths = {f'{loader}.dataset.dataset.data_root': root for loader in loaders}
    options = [f'{key}={value}' for key, value in paths.items()]
    options += [f'val_evaluator.ann_file={root}annotations/val.json', 'log_level=ERROR']
    options.append('randomness.seed=0')
    return TrainSettings(
        CONFIG,
        work_dir=run_dir,
        image_size=args.image_size,
        cfg_options=[*options, *(args.cfg_options or ())],
    )


def train(settings: 'TrainSettings') -> dict[str, float]:
    """Train with a progress bar; return the metrics of the last evaluation."""
    from effdet_plugin.engine.hooks import ProgressBarHook
    from effdet_plugin.engine.runner import keep_freed_memory
    from effdet_plugin.training import prepare
    from effdet_plugin.training.running import build_runner, one_line_errors

    keep_freed_memory()
    with one_line_errors(), redirect_stdout(io.StringIO()):  # pycocotools prints
        config = prepare(settings).cfg
        runner = build_runner(config)
        runner.register_hook(ProgressBarHook())
        runner.train()
    history = runner.message_hub.log_scalars
    prefix = 'val/coco/bbox_'
    return {
        name.removeprefix(prefix): buffer.current()
        for name, buffer in history.items()
        if name.startswith(prefix)
    }


def draw(run_dir: Path, scenes: Path) -> Path:
    """Draw the trained detector's predictions for some validation scenes."""
    from pycocotools.coco import COCO

    from effdet_plugin.demo import showcase
    from effdet_plugin.files import write_image
    from effdet_plugin.inference import Detector

    checkpoint = (run_dir / 'last_checkpoint').read_text().strip()
    detector = Detector(run_dir / CONFIG.name, checkpoint, score_thr=SCORE_THR)
    with redirect_stdout(io.StringIO()):
        coco = COCO(scenes / 'annotations' / 'val.json')
    path = run_dir / 'predictions.jpg'
    write_image(path, showcase(detector, coco, scenes / 'val'))
    return path


if __name__ == '__main__':
    run(main)
