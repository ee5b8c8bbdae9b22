#!/usr/bin/env python3
"""Train a small detector on drawn scenes and show what it finds; quickstart.sh sets up first.

    tools/quickstart.py                        # writes to work_dirs/quickstart/run_N
    tools/quickstart.py --out DIR --image-size 320

Every call is a run of its own and leaves the earlier ones as they are; the scenes are drawn once.
"""

import argparse
import io
import os
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from _bootstrap import ROOT, run

if TYPE_CHECKING:
    from effdet_plugin.training import TrainSettings

CONFIG = ROOT / 'configs' / 'efficientdet' / 'quickstart.py'
OWN_DATA = '.venv/bin/python tools/train.py configs/efficientdet/custom_coco.py --data DIR'
SCORE_THR = 0.4  # of what the picture shows


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--out', type=Path, default=Path('work_dirs/quickstart'), help='default: %(default)s')
    add('--train-scenes', type=int, default=320, help='default: %(default)s')
    add('--val-scenes', type=int, default=64, help='default: %(default)s')
    add('--image-size', help='input size in pixels: 256 or WIDTHxHEIGHT')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config')
    return parser.parse_args()


def main() -> None:
    """Draw, train, evaluate, show."""
    args = parse_args()
    started = time.monotonic()
    limit_threads()
    print('quickstart: loading PyTorch and MMDetection', flush=True)
    from effdet_plugin.datasets.scenes import make_scenes

    scenes = make_scenes(args.out / 'scenes', args.train_scenes, args.val_scenes)
    run_dir = new_run_dir(args.out)
    print(f'quickstart: {args.train_scenes} scenes to learn from; log in {run_dir}', flush=True)
    metrics = train(settings(args, scenes, run_dir))
    picture = draw(run_dir, scenes)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(
        f'\nAP {metrics["mAP"]:.3f}, AP50 {metrics["mAP_50"]:.3f} on {args.val_scenes} held-out '
        f'scenes, after {minutes}:{seconds:02d} minutes'
        f'\nfound beside what is there: {picture}'
        f'\n\nNext, your own pictures (a folder DIR as COCO, Pascal VOC, YOLO or csv has it):'
        f'\n  {OWN_DATA}'
    )


def limit_threads() -> None:
    """Use half of the cores, at most four, unless the user has said how many; before torch loads.

    A step of a small network is a thousand short kernels. Where other programs want the cores, too,
    each kernel waits for its last thread: on two busy cores a step took 1.9 to 4.2 s with two
    threads, 0.5 s with two that sleep while waiting, and 0.3 s with one.
    """
    cores = os.cpu_count() or 1
    os.environ.setdefault('OMP_NUM_THREADS', str(min(max(cores // 2, 1), 4)))
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def new_run_dir(parent: Path) -> Path:
    """Make the first folder of run_1, run_2, ... that is not there."""
    number = 1
    while True:
        run_dir = parent / f'run_{number}'
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return run_dir


def settings(args: argparse.Namespace, scenes: Path, run_dir: Path) -> 'TrainSettings':
    """Say what tools/train.py would be told."""
    from effdet_plugin.training import TrainSettings

    root = f'{scenes.as_posix()}/'
    loaders = ('train_dataloader', 'val_dataloader')
    paths = {f'{loader}.dataset.dataset.data_root': root for loader in loaders}
    options = [f'{key}={value}' for key, value in paths.items()]
    options += [f'val_evaluator.ann_file={root}annotations/val.json', 'log_level=ERROR']
    return TrainSettings(
        CONFIG,
        work_dir=run_dir,
        image_size=args.image_size,
        cfg_options=[*options, *args.cfg_options],
        seed=0,
    )


def train(settings: 'TrainSettings') -> dict[str, float]:
    """Train with one line of progress; return the numbers of the evaluation at the end."""
    from effdet_plugin.engine.hooks import ProgressBarHook
    from effdet_plugin.engine.runner import keep_freed_memory
    from effdet_plugin.training import prepare
    from effdet_plugin.training.running import build_runner, one_line_errors

    keep_freed_memory()
    with one_line_errors(), redirect_stdout(io.StringIO()):  # pycocotools prints
        config, _ = prepare(settings)
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
    """Draw what the trained detector finds on some held-out scenes."""
    from pycocotools.coco import COCO

    from effdet_plugin.files import write_image
    from effdet_plugin.inference import Detector
    from effdet_plugin.inference.showcase import showcase

    checkpoint = (run_dir / 'last_checkpoint').read_text().strip()
    detector = Detector(run_dir / CONFIG.name, checkpoint, score_thr=SCORE_THR)
    with redirect_stdout(io.StringIO()):
        coco = COCO(scenes / 'annotations' / 'val.json')
    picture = run_dir / 'predictions.jpg'
    write_image(picture, showcase(detector, coco, scenes / 'val'))
    return picture


if __name__ == '__main__':
    run(main)
