"""Write a checkpoint for another runtime, checked against PyTorch.

%(prog)s best.pth --format onnx                     # ONNX Runtime; writes best.onnx
%(prog)s d0_coco d0.pth --format openvino --nms hard --score-thr 0.05 --out d0.xml
%(prog)s best.pth --format tflite                   # phones, MediaPipe, Raspberry Pi
%(prog)s d0_coco d0.pth --format onnx --end raw --dynamic-size --out d0_any_size.onnx
%(prog)s best.onnx --serve triton models            # a model repository of a server
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from effdet_plugin.cli.model_words import add_model, check_is_there
from effdet_plugin.cli.options import add_config_options
from effdet_plugin.errors import ConfigError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add_model(parser)
    formats = ('onnx', 'openvino', 'pt2', 'tensorrt', 'tflite')
    add('--format', choices=formats, help='format of the file')
    add(
        '--out', type=Path, help='file to write, .onnx, .xml, .pt2, .tflite (default: beside MODEL)'
    )
    add(
        '--end',
        default='postprocess',
        choices=('postprocess', 'decoded', 'raw'),
        help='last step in the file: NMS, boxes and scores of all anchors, or logits and deltas '
        '(default: %(default)s)',
    )
    add('--nms', choices=('hard', 'soft'), help="NMS in the file (default: the config's)")
    add('--score-thr', type=float, help="score threshold (default: the config's)")
    add('--iou-thr', type=float, help="IoU threshold of hard NMS (default: the config's)")
    add('--max-per-img', type=int, help="rows of the output (default: the config's)")
    add(
        '--precision',
        default='fp32',
        choices=('fp32', 'fp16', 'dynamic', 'int8'),
        help='of the network: half floats, 8-bit weights, or all in 8 bits (default: %(default)s)',
    )
    add(
        '--calib',
        type=Path,
        metavar='DIR',
        help="images for int8 and the check (default: the config's data)",
    )
    add(
        '--calib-count', type=int, default=200, help='number of these images (default: %(default)s)'
    )
    add(
        '--dynamic-size',
        '--dynamic',
        dest='dynamic',
        action='store_true',
        help='any size of multiples of 128; needs --end raw',
    )
    add(
        '--input',
        default='float',
        choices=('float', 'uint8'),
        help='float: images resized and normalised; uint8: pixels of any size, the file resizes '
        'and normalises (default: %(default)s)',
    )
    add(
        '--serve',
        nargs=2,
        metavar=('ENGINE', 'DIR'),
        help='put the file (--out, or MODEL without it) into the model repository DIR of triton or '
        'ovms (OpenVINO Model Server)',
    )
    add_config_options(parser)


def run(args: Namespace) -> None:
    """Export, check, and print the differences; prepare a server's repository."""
    if not args.format and (args.out or not args.serve):
        raise ConfigError('export: give --format, or a file and --serve')
    check_is_there(args.model)
    file = _export(args) if args.format else args.model
    if args.serve:
        from effdet_plugin.export.serving import serve

        served = serve(file, *args.serve)
        print(f'{served.folder}: version {served.version}; for clients: {served.client}')


def _export(args: Namespace) -> Path:
    from effdet_plugin.export.api import FORMATS, Options, export
    from effdet_plugin.export.extras import check_installed
    from effdet_plugin.trained_model import load_trained

    options = Options(
        format=args.format,
        end=args.end,
        nms=args.nms,
        score_thr=args.score_thr,
        iou_thr=args.iou_thr,
        max_per_img=args.max_per_img,
        dynamic=args.dynamic,
        precision=args.precision,
        input=args.input,
        calib=args.calib,
        calib_count=args.calib_count,
    )
    options.check()
    check_installed(options.format, options.precision)  # before a minute of work
    trained = load_trained(
        args.config, args.model, 'cpu', image_size=args.image_size, options=args.cfg_options
    )
    out = args.out or Path(args.model).with_suffix(FORMATS[args.format])
    made = export(trained, out, options, print)
    print(f'{made.path}: {made.path.stat().st_size / 1e6:.1f} MB')
    return made.path
