"""Evaluate a checkpoint: COCO's 12 metrics; --out writes the detections in COCO's results format.

%(prog)s d0_coco d0.pth --out results.json       # on the data of the config
%(prog)s best.pth --data DIR                     # own data: folder or annotation file
%(prog)s model.onnx --data DIR                   # an exported file
%(prog)s d0_coco none                            # random weights, to try the config
%(prog)s CONFIG MODEL --tta wbf                  # test-time augmentation
%(prog)s CONFIG MODEL --tiles 640                # small objects of large images
%(prog)s best.pth --data DIR --report DIR        # curves, confusion, worst images: one page
%(prog)s CONFIG MODEL --out detections.json --test-dev    # for COCO's test server
"""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from effdet_plugin.cli.model_words import add_model, check_is_there
from effdet_plugin.cli.options import add_config_options, add_launcher, add_tiles, tiles_of


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add_model(parser)
    add('--out', type=Path, metavar='F.json', help='write the detections to this file')
    add(
        '--tta',
        nargs='?',
        const='nms',
        choices=('nms', 'wbf'),
        help='test-time augmentation, merged by NMS (default) or weighted boxes fusion',
    )
    add_tiles(parser)
    add('--test-dev', action='store_true', help="round the detections as COCO's test server asks")
    add(
        '--data',
        type=Path,
        help='own data: folder or annotation file; its test split, else validation, else all',
    )
    add('--work-dir', type=Path, help='write logs to WORK_DIR/test')
    add(
        '--report',
        type=Path,
        metavar='DIR',
        help='write report.html and report.png: AP per class, curves, confusion, worst images',
    )
    add_config_options(parser)
    add_launcher(parser)


def run(args: Namespace) -> None:
    """Evaluate, and print the metrics."""
    arguments = vars(args)
    os.environ.setdefault('LOCAL_RANK', str(arguments.pop('local_rank')))
    check_is_there(args.model)
    check_is_there(args.data)
    from effdet_plugin.inference import TTA
    from effdet_plugin.training import TestSettings, evaluate, metrics_table

    merge = arguments.pop('tta')
    tta = TTA(merge=merge) if merge else None
    tiles = tiles_of(args)
    metrics = evaluate(
        TestSettings(checkpoint=arguments.pop('model'), tta=tta, tiles=tiles, **arguments)
    )
    if os.environ.get('RANK', '0') == '0':
        print(metrics_table(metrics))
        if args.report:
            print(f'report: {args.report / "report.html"}')
