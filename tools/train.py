#!/usr/bin/env python3
"""Train a detector. The arguments are mmdet's, and --data for own data.

    tools/train.py configs/efficientdet/custom_coco.py --data DIR
    tools/train.py configs/efficientdet/d0_coco.py --amp --image-size 640 --resume
    tools/train.py configs/efficientdet/custom_coco.py --data DIR --dry-run    # check first

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
    parser.add_argument('--data', type=Path, help='own data: folder or annotation file')
    parser.add_argument('--work-dir', type=Path, help='folder for checkpoints and logs')
    parser.add_argument('--image-size', help='input size of the network: 640 or WIDTHxHEIGHT')
    parser.add_argument(
        '--amp', action='store_true', help='enable automatic mixed precision training'
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='resume from CKPT, or from the latest checkpoint in the work dir',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='overwrite an existing run in the work dir'
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='check data and config with one step, write nothing'
    )
    parser.add_argument('--seed', type=int, help='random seed')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes it; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Train, or do a dry run."""
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
