"""Convert weights of other projects to ours and back; the report lists every tensor.

%(prog)s d0 d0.pth                        (downloads Google's release)
%(prog)s efficientdet-d1.tar.gz d1.pth --model d1
%(prog)s tf_efficientdet_d0_34.pth d0.pth --classes 90
%(prog)s d0.pth d0_effdet.pth --to effdet

SRC is a TensorFlow checkpoint (folder, archive, prefix or .index), an .npz by TensorFlow's variable
names, a Keras .h5, a .pth of ours, effdet, zylo117's Yet-Another-EfficientDet-Pytorch or
mmdetection's projects/EfficientDet, the URL of one of these, or the name of a release of the
reference (google/automl): d0 ... d7x, d2-640 ... d6-640, d0-advprop ... d5-advprop,
lite0 ... lite4, lite3x. The written config has what these weights were trained with: anchors,
padding, pooling.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add('src', metavar='SRC', help='checkpoint, or the name of a release')
    add('out', metavar='OUT', type=Path, help='file to write')
    add('--model', help='expected network (d0 ... d7x, lite0 ... lite4); another one is an error')
    add(
        '--classes',
        default='80',
        help="80: COCO's classes; 90: COCO's category ids 1 to 90, as in the reference; or a file "
        'with one name per line '
        '(default: %(default)s)',
    )
    add(
        '--to',
        default='mmengine',
        choices=('mmengine', 'effdet', 'npz'),
        help="our checkpoint, effdet's state dict, or .npz by TensorFlow's names "
        '(default: %(default)s)',
    )
    add('--raw', action='store_true', help='weights as trained, not their moving averages')
    add('--cache', type=Path, help='folder for downloads (default: in that of torch.hub)')
    add('--report', type=Path, metavar='JSON', help='write the report of all tensors to this file')


def run(args: Namespace) -> None:
    """Convert, write the result, print the report."""
    from effdet_plugin.convert import convert
    from effdet_plugin.convert.networks import embed_config

    converted = convert(
        args.src, args.model, args.classes, raw=args.raw, to=args.to, cache=args.cache
    )
    if args.to == 'mmengine':
        embed_config(converted.meta)
    converted.save(args.out)
    if args.report is not None:
        converted.save_report(args.report)
    print('\n'.join(converted.report.lines()))
    print(f'written     {args.out}')
