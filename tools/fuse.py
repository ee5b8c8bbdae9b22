#!/usr/bin/env python3
"""Fuse the result files of several models on the same pictures, by weighted boxes fusion.

    tools/test.py CONFIG_A A.pth --out a.json
    tools/test.py CONFIG_B B.pth --out b.json
    tools/fuse.py a.json b.json --out fused.json --ann-file instances_val2017.json

With --ann-file the fused detections, and each file's own, are evaluated.
"""

import argparse
from pathlib import Path

from _bootstrap import run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('results', nargs='+', type=Path, metavar='F.json', help="two or more, COCO's results form")
    add('--out', type=Path, required=True, metavar='F.json', help='the fused detections')
    add('--iou-thr', type=float, default=0.55, help='of one object, in (0, 1] (%(default)s)')
    add('--max-per-image', type=int, default=100, help='kept of each picture (%(default)s)')
    add('--ann-file', type=Path, help='ground truth as COCO json, to evaluate')
    add(
        '--categories-below',
        type=int,
        metavar='N',
        help="leave out category ids from N on: with its number of classes the reference's loss of "
        'the last one',
    )
    return parser.parse_args()


def main() -> None:
    """Fuse, and evaluate if there is a ground truth."""
    args = parse_args()
    from effdet_plugin.inference.fusing import evaluate_files, fuse_files, read_truth

    truth = read_truth(args.ann_file) if args.ann_file else None
    count = fuse_files(
        args.results, args.out, args.iou_thr, args.max_per_image, args.categories_below, truth
    )
    print(f'{count} detections: {args.out}')
    if truth is not None:
        for path, numbers in evaluate_files(truth, [*args.results, args.out]):
            print(path, *(f'{name} {value:.3f}' for name, value in numbers.items()), sep='  ')


if __name__ == '__main__':
    run(main)
