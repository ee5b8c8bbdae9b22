#!/usr/bin/env python3
"""Evaluate a checkpoint: COCO's 12 metrics, and the detections as COCO json.

tools/test.py configs/efficientdet/d0_coco.py d0.pth --out results.json
tools/test.py configs/efficientdet/d0_coco.py none            # random weights, to try the config
tools/test.py CONFIG CHECKPOINT --data DIR                    # own data: folder or json
tools/test.py CONFIG CHECKPOINT --tta wbf                     # test-time augmentation, fused
tools/test.py CONFIG CHECKPOINT --out detections.json --test-dev    # for COCO's test server
"""

import argparse
import os
from pathlib import Path

from _bootstrap import run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for random weights")
    parser.add_argument(
        '--out', type=Path, metavar='F.json', help='write the detections to this file'
    )
    parser.add_argument(
        '--tta',
        nargs='?',
        const='nms',
        choices=('nms', 'wbf'),
        help='test-time augmentation, merged by NMS (default) or weighted boxes fusion',
    )
    parser.add_argument(
        '--test-dev', action='store_true', help="round the detections as COCO's test server asks"
    )
    parser.add_argument(
        '--data',
        type=Path,
        help='own data, a folder or annotation file: its test split, else validation, else all',
    )
    parser.add_argument('--work-dir', type=Path, help='write logs to WORK_DIR/test')
    parser.add_argument('--image-size', help='input size of the network: 640 or WIDTHxHEIGHT')
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
