#!/usr/bin/env python3
"""Detect objects in images and video; write drawings, and one JSON file in COCO's results format.

tools/infer.py d0_coco d0.pth photo.jpg
tools/infer.py best.pth 'photos/**/*.jpg' --out found         # a checkpoint of ours has its config
tools/infer.py d0_coco d0.pth street.mp4 --classes car bus --score-thr 0.3
tools/infer.py d0_coco d0.pth rtsp://user:password@camera/stream --show
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from _bootstrap import (
    EXIT_INTERRUPTED,
    add_config_options,
    add_model,
    make_parser,
    parse_model_args,
    run,
)


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add_model(parser)
    add(
        'input',
        nargs='+',
        help='image, video, folder, glob pattern (in quotes), .txt list, camera (0), or address: '
        'http(s) of an image, a video or an MJPEG stream, rtsp',
    )
    add(
        '--out',
        type=Path,
        default=Path('work_dirs/infer'),
        help='output folder for vis/ and predictions.json (default: %(default)s)',
    )
    add('--batch-size', type=int, default=1, help='batch size (default: %(default)s)')
    add('--device', help='device: cpu, cuda, cuda:1, mps (default: the fastest available)')
    _add_selection(parser)
    half = parser.add_mutually_exclusive_group()
    half.add_argument('--fp16', action='store_true', help='run the network in float16')
    half.add_argument('--bf16', action='store_true', help='run the network in bfloat16')
    add('--frame-step', type=int, default=1, metavar='N', help='take every N-th frame of a video')
    add('--max-frames', type=int, metavar='N', help='take at most N frames of each video')
    add('--show', action='store_true', help='show the drawings in a window, too; q ends')
    add_config_options(parser)
    add(
        '--tta',
        nargs='?',
        const='nms',
        choices=('nms', 'wbf'),
        help='test-time augmentation, merged by NMS (default) or weighted boxes fusion',
    )
    add('--strict', action='store_true', help='exit with 1 if a file cannot be read')
    return parse_model_args(parser)


def _add_selection(parser: ArgumentParser) -> None:
    """Add the options that say which detections are kept."""
    add = parser.add_argument
    add('--score-thr', type=float, default=0.4, help='score threshold (default: %(default)s)')
    add('--classes', nargs='+', metavar='NAME', help='keep these classes only')
    add('--max-per-img', type=int, metavar='N', help='keep the N best of an image')
    add('--nms', choices=('hard', 'soft'), help="NMS (default: the config's)")


def main() -> int:
    """Detect, then print what was written and what could not be read."""
    args = parse_args()
    from effdet_plugin.inference import TTA, Detector, Frames, InferOptions, find_sources, infer

    options = InferOptions(args.score_thr, Frames(args.frame_step, args.max_frames), args.show)
    sources = [source for text in args.input for source in find_sources(text)]
    detector = Detector(
        args.config,
        args.model,
        device=args.device,
        batch_size=args.batch_size,
        tta=TTA(merge=args.tta) if args.tta else None,
        image_size=args.image_size,
        options=args.cfg_options,
        fast=True,
        precision='fp16' if args.fp16 else 'bf16' if args.bf16 else 'fp32',
        nms=args.nms,
        max_per_img=args.max_per_img,
        classes=args.classes,
    )
    result = infer(detector, sources, args.out, options)
    for line in (*result.unreadable, *result.remarks):
        print(line)
    print(f'{result.summary(args.score_thr)}: {args.out / "vis"}, {result.file}')
    if result.is_interrupted:
        print('stopped early: what is written is complete')
        return EXIT_INTERRUPTED
    return int(args.strict and bool(result.unreadable))


if __name__ == '__main__':
    run(main)
