#!/usr/bin/env python3
"""Fuse the result files of several models on the same images by weighted boxes fusion.

    tools/test.py CONFIG_A A.pth --out a.json
    tools/test.py CONFIG_B B.pth --out b.json
    tools/fuse.py a.json b.json --out fused.json --ann-file instances_val2017.json

With --ann-file the fused detections and those of each file are evaluated.
"""

from argparse import Namespace
from pathlib import Path

from _bootstrap import make_parser, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        'results',
        nargs='+',
        type=Path,
        metavar='F.json',
        help="two or more files in COCO's results format",
    )
    add(
        '--out',
        type=Path,
        required=True,
        metavar='F.json',
        help='output file of the fused detections',
    )
    add('--iou-thr', type=float, default=0.55, help='IoU threshold (default: %(default)s)')
    add('--max-per-img', type=int, default=100, help='detections per image (default: %(default)s)')
    add('--ann-file', type=Path, help='COCO annotation file, to evaluate against')
    add(
        '--categories-below',
        type=int,
        metavar='N',
        help='leave out category ids of N and above, as google/automl efficientdet/tf2/wbf.py does '
        'with its number of classes',
    )
    return parser.parse_args()


def main() -> None:
    """Fuse, and evaluate if the ground truth is given."""
    args = parse_args()
    from effdet_plugin.inference.fuse import evaluate_files, fuse_files, read_truth

    truth = read_truth(args.ann_file) if args.ann_file else None
    count = fuse_files(
        args.results, args.out, args.iou_thr, args.max_per_img, args.categories_below, truth
    )
    print(f'{count} detections: {args.out}')
    if truth is not None:
        for path, metrics in evaluate_files(truth, [*args.results, args.out]):
            print(path, *(f'{name} {value:.3f}' for name, value in metrics.items()), sep='  ')


if __name__ == '__main__':
    run(main)
