#!/usr/bin/env python3
"""Detect objects in images; write a drawing of each, and one JSON file in COCO's results format.

tools/infer.py configs/efficientdet/d0_coco.py d0.pth photo.jpg
tools/infer.py configs/efficientdet/lite0_coco.py none 'photos/**/*.jpg' --out found
"""

from argparse import Namespace
from pathlib import Path

from _bootstrap import add_config_options, make_parser, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help="checkpoint file, or 'none' for random weights")
    add('input', help='image, folder, glob pattern (in quotes) or .txt list of paths')
    add(
        '--out',
        type=Path,
        default=Path('work_dirs/infer'),
        help='output folder for vis/ and predictions.json (default: %(default)s)',
    )
    add('--score-thr', type=float, default=0.4, help='score threshold (default: %(default)s)')
    add('--batch-size', type=int, default=1, help='batch size (default: %(default)s)')
    add('--device', help='device: cpu, cuda, cuda:1, mps (default: the fastest available)')
    add_config_options(parser)
    add(
        '--tta',
        nargs='?',
        const='nms',
        choices=('nms', 'wbf'),
        help='test-time augmentation, merged by NMS (default) or weighted boxes fusion',
    )
    add('--strict', action='store_true', help='exit with 1 if a file cannot be read')
    return parser.parse_args()


def main() -> int:
    """Detect, then print what was written and what could not be read."""
    args = parse_args()
    from effdet_plugin.config import load
    from effdet_plugin.inference import TTA, Detector, find_images, infer_files

    files = find_images(args.input)
    detector = Detector(
        load(args.config, image_size=args.image_size, options=args.cfg_options),
        args.checkpoint,
        device=args.device,
        score_thr=args.score_thr,
        batch_size=args.batch_size,
        tta=TTA(merge=args.tta) if args.tta else None,
    )
    result = infer_files(detector, files, args.out)
    for line in result.unreadable:
        print(line)
    print(
        f'{len(result.predictions)} objects in {result.num_read} images: '
        f'{args.out / "vis"}, {args.out / "predictions.json"}'
    )
    return int(args.strict and bool(result.unreadable))


if __name__ == '__main__':
    run(main)
