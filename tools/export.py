#!/usr/bin/env python3
"""Write a checkpoint for ONNX Runtime, OpenVINO or PyTorch's pt2, checked against PyTorch.

tools/export.py best.pth --format onnx --out best.onnx
tools/export.py d0_coco d0.pth --format openvino --nms hard --score-thr 0.05 --out d0.xml
tools/export.py d0_coco d0.pth --format onnx --end raw --dynamic --out d0_any_size.onnx
"""

from argparse import Namespace
from pathlib import Path

from _bootstrap import add_config_options, add_model, make_parser, parse_model_args, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add_model(parser)
    add('--format', required=True, choices=('onnx', 'openvino', 'pt2'), help='format of the file')
    add('--out', type=Path, required=True, help='file to write: .onnx, .xml or .pt2')
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
    add('--dynamic', action='store_true', help='any size of multiples of 128; needs --end raw')
    add_config_options(parser)
    return parse_model_args(parser)


def main() -> None:
    """Export, check, and print the differences."""
    args = parse_args()
    from effdet_plugin.export.api import Options, export
    from effdet_plugin.trained_model import load_trained

    trained = load_trained(
        args.config, args.model, 'cpu', image_size=args.image_size, options=args.cfg_options
    )
    options = Options(
        format=args.format,
        end=args.end,
        nms=args.nms,
        score_thr=args.score_thr,
        iou_thr=args.iou_thr,
        max_per_img=args.max_per_img,
        dynamic=args.dynamic,
    )
    made = export(trained, args.out, options, print)
    print(f'{made.path}: {made.path.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run(main)
