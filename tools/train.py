#!/usr/bin/env python3
"""Train a detector. The arguments are those of mmdet's tools/train.py, and --data for own data.

    tools/train.py configs/efficientdet/custom_coco.py --data DIR
    tools/train.py configs/efficientdet/d0_coco.py --amp --image-size 640 --resume
    tools/train.py configs/efficientdet/custom_coco.py --data DIR --dry-run    # check first

Checkpoints and logs go to work_dirs/CONFIG, or --work-dir. The last line of --dry-run is JSON.
"""

import json
import os
from argparse import Namespace
from pathlib import Path

from _bootstrap import add_config_options, add_launcher, make_parser, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('config', type=Path, help='config file')
    add('--data', type=Path, help='own data: folder or annotation file')
    add('--work-dir', type=Path, help='folder for checkpoints and logs')
    add('--amp', action='store_true', help='enable automatic mixed precision training')
    add('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    add(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='resume from CKPT, or from the latest checkpoint in the work dir',
    )
    add('--overwrite', action='store_true', help='overwrite an existing run in the work dir')
    add('--dry-run', action='store_true', help='check data and config with one step; write nothing')
    add('--seed', type=int, help='random seed')
    add_config_options(parser)
    add_launcher(parser)
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
