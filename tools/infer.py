#!/usr/bin/env python3
"""Find objects on pictures: a drawing of each, and one json in COCO's results form.

tools/infer.py configs/efficientdet/d0_coco.py d0.pth photo.jpg
tools/infer.py configs/efficientdet/lite0_coco.py none 'photos/**/*.jpg' --out found
"""

import argparse
from pathlib import Path

from _bootstrap import run


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help="trained weights, or 'none' for random ones")
    add('input', help='picture, folder, glob pattern (in quotes) or .txt list of paths')
    add(
        '--out',
        type=Path,
        default=Path('work_dirs/infer'),
        help='folder of vis/ and predictions.json (default: %(default)s)',
    )
    add(
        '--score-thr',
        type=float,
        default=0.4,
        help='leave out what scores less (default: %(default)s)',
    )
    add('--batch-size', type=int, default=1, help='pictures at once (default: %(default)s)')
    add('--device', help='cpu, cuda, cuda:1, mps; default: the fastest there is')
    add('--image-size', help='input size of the network: 640 or 1920x1280 (width x height)')
    add(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change values of the config',
    )
    add(
        '--tta',
        nargs='?',
        const='nms',
        choices=('nms', 'wbf'),
        help='look at each picture several times, and merge by NMS or weighted boxes fusion',
    )
    add('--strict', action='store_true', help='exit with 1 when a file could not be read')
    return parser.parse_args()


def main() -> int:
    """Infer, then say what was written and what could not be read."""
    args = parse_args()
    from effdet_plugin.config import load
    from effdet_plugin.inference import TTA, Detector, TTADetector, find_images, infer_files

    files = find_images(args.input)
    config = load(args.config, image_size=args.image_size, options=args.cfg_options)
    settings = dict(device=args.device, score_thr=args.score_thr, batch_size=args.batch_size)
    detector = (
        TTADetector(config, args.checkpoint, TTA(merge=args.tta), **settings)
        if args.tta
        else Detector(config, args.checkpoint, **settings)
    )
    result = infer_files(detector, files, args.out)
    for line in result.unreadable:
        print(line)
    print(
        f'{len(result.predictions)} objects on {result.num_read} pictures: '
        f'{args.out / "vis"}, {args.out / "predictions.json"}'
    )
    return int(args.strict and bool(result.unreadable))


if __name__ == '__main__':
    run(main)
