#!/usr/bin/env python3
"""Evaluate a checkpoint: COCO's 12 metrics; --out writes the detections in COCO's results format.

tools/test.py configs/efficientdet/d0_coco.py d0.pth --out results.json
tools/test.py configs/efficientdet/d0_coco.py none            # random weights, to try the config
tools/test.py CONFIG CHECKPOINT --data DIR                    # own data: folder or annotation file
tools/test.py CONFIG CHECKPOINT --tta wbf                     # test-time augmentation
tools/test.py CONFIG CHECKPOINT --out detections.json --test-dev    # for COCO's test server
"""

import os
from argparse import Namespace
from pathlib import Path

from _bootstrap import add_config_options, add_launcher, make_parser, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('config', type=Path, help='config file')
    add('checkpoint', help="checkpoint file, or 'none' for random weights")
    add('--out', type=Path, metavar='F.json', help='write the detections to this file')
    add(
        '--tta',
        nargs='?',
        const='nms',
        choices=('nms', 'wbf'),
        help='test-time augmentation, merged by NMS (default) or weighted boxes fusion',
    )
    add('--test-dev', action='store_true', help="round the detections as COCO's test server asks")
    add(
        '--data',
        type=Path,
        help='own data: folder or annotation file; its test split, else validation, else all',
    )
    add('--work-dir', type=Path, help='write logs to WORK_DIR/test')
    add_config_options(parser)
    add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    """Evaluate, and print the metrics."""
    arguments = vars(parse_args())
    os.environ.setdefault('LOCAL_RANK', str(arguments.pop('local_rank')))
    from effdet_plugin.inference import TTA
    from effdet_plugin.training import TestSettings, evaluate, metrics_table

    merge = arguments.pop('tta')
    tta = TTA(merge=merge) if merge else None
    metrics = evaluate(TestSettings(tta=tta, **arguments))
    if os.environ.get('RANK', '0') == '0':
        print(metrics_table(metrics))


if __name__ == '__main__':
    run(main)
