"""Detect objects in images and video; write drawings, and one JSON file in COCO's results format.

%(prog)s d0_coco d0.pth photo.jpg
%(prog)s best.pth 'photos/**/*.jpg' --out found         # a checkpoint of ours has its config
%(prog)s d0_coco d0.pth street.mp4 --classes car bus --score-thr 0.3
%(prog)s best.pth aerial.jpg --tiles 640                # small objects of large images
%(prog)s d0_coco d0.pth rtsp://user:password@camera/stream --show
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from effdet_plugin.cli.model_words import add_model, check_is_there
from effdet_plugin.cli.options import add_config_options, add_tiles, tiles_of
from effdet_plugin.cli.start import EXIT_INTERRUPTED


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
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
    add_tiles(parser)
    add(
        '--launcher',
        choices=('none', 'pytorch'),
        default='none',
        help='pytorch: one of several processes; tools/dist_infer.sh starts them',
    )
    add('--strict', action='store_true', help='exit with 1 if a file cannot be read')


def _add_selection(parser: ArgumentParser) -> None:
    """Add the options that say which detections are kept."""
    add = parser.add_argument
    add('--score-thr', type=float, default=0.4, help='score threshold (default: %(default)s)')
    add(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='keep these classes only (of a file: of its rows)',
    )
    add('--max-per-img', type=int, metavar='N', help='keep the N best of an image')
    add('--nms', choices=('hard', 'soft'), help="NMS (default: the config's)")


def run(args: Namespace) -> int:
    """Detect, then print what was written and what could not be read."""
    tiles = tiles_of(args)
    check_is_there(args.model)
    from effdet_plugin.inference import TTA, Detector, Frames, InferOptions, find_sources, infer
    from effdet_plugin.inference.shards import infer_in_shards, settings_of
    from effdet_plugin.inference.workers import device_of_process

    options = InferOptions(args.score_thr, Frames(args.frame_step, args.max_frames), args.show)
    is_alone = args.launcher == 'none'
    sources = [source for text in args.input for source in find_sources(text)] if is_alone else []
    detector = Detector(
        args.config,
        args.model,
        device=args.device or (None if is_alone else device_of_process()),
        batch_size=args.batch_size,
        tta=TTA(merge=args.tta) if args.tta else None,
        tiles=tiles,
        image_size=args.image_size,
        options=args.cfg_options,
        fast=True,
        precision='fp16' if args.fp16 else 'bf16' if args.bf16 else 'fp32',
        nms=args.nms,
        max_per_img=args.max_per_img,
        classes=args.classes,
    )
    if is_alone:
        result = infer(detector, sources, args.out, options)
    else:
        settings = settings_of({**vars(args), 'tiles': tiles})
        found = infer_in_shards(detector, args.input, args.out, options, settings)
        if found is None:
            return 0  # the first process tells what all have found
        result = found
    for line in (*result.unreadable, *result.remarks):
        print(line)
    print(f'{result.summary(args.score_thr)}: {args.out / "vis"}, {result.file}')
    if result.is_interrupted:
        print('stopped early: what is written is complete')  # of several processes: each shard
        return EXIT_INTERRUPTED
    return int(args.strict and bool(result.unreadable))
