#!/usr/bin/env python3
"""Train a detector: mmdet's own arguments, and --data for your own pictures.

    tools/train.py configs/efficientdet/custom_coco.py --data DIR
    tools/train.py configs/efficientdet/d0_coco.py --amp --image-size 640 --resume
    tools/train.py configs/efficientdet/custom_coco.py --data DIR --dry-run    # would it start?

Checkpoints and logs go to work_dirs/CONFIG, or --work-dir. The last line of --dry-run is json.
"""

import argparse
import json
import os
from pathlib import Path

from _bootstrap import run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('--data', type=Path, help='own data: a folder, or an annotation file')
    parser.add_argument('--work-dir', type=Path, help='folder of checkpoints and logs')
    parser.add_argument('--image-size', help='input size in pixels: 640 or WIDTHxHEIGHT')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='go on from CKPT, or from the newest checkpoint of the work dir if it has one',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='give up the run that the work dir holds'
    )
    parser.add_argument('--dry-run', action='store_true', help='all but the training')
    parser.add_argument('--seed', type=int, help='of everything random')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='change the config'
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    # torch.distributed.launch hands it on; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Train, or try whether it would start."""
    arguments = vars(parse_args())
    os.environ.setdefault('LOCAL_RANK', str(arguments.pop('local_rank')))
    is_dry_run = arguments.pop('dry_run')
    from effdet_plugin.training import TrainSettings, dry_run, train

    settings = TrainSettings(**arguments)
    if is_dry_run:
        print(json.dumps(dry_run(settings), ensure_ascii=False))
    else:
        train(settings)


if __name__ == '__main__':
    run(main)
