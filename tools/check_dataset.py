#!/usr/bin/env python3
"""Check a dataset: every image and box, class names, splits, and the anchors of a config.

    tools/check_dataset.py DIR                      # as train.py --data takes it
    tools/check_dataset.py instances.json --images DIR --json report.json
    tools/check_dataset.py configs/efficientdet/d0_coco.py
    tools/check_dataset.py DIR --fix CLEANED        # a copy; the original is not changed

Exit code: 0; 1 if a training would not start (with --strict, for any fault); 2 for wrong arguments.
"""

from argparse import Namespace
from pathlib import Path

from _bootstrap import ROOT, add_config_options, make_parser, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('data', type=Path, help='folder, annotation file, or config that names its data')
    add(
        '--config',
        type=Path,
        default=ROOT / 'configs' / 'efficientdet' / 'custom_coco.py',
        help='config whose anchors are compared with the boxes (default: custom_coco.py)',
    )
    add('--images', type=Path, metavar='DIR', help='folder of the images, if they are elsewhere')
    add(
        '--out',
        type=Path,
        default=Path('work_dirs/check_dataset'),
        help='output folder for report.html and its images (default: %(default)s)',
    )
    add('--json', type=Path, metavar='FILE', help='output file of the report as json')
    add('--fix', type=Path, metavar='OUT', help='output folder for a cleaned copy (new or empty)')
    add('--strict', action='store_true', help='exit with 1 for any fault')
    add_config_options(parser)
    return parser.parse_args()


def main() -> int:
    """Check, print the page and write what was asked for."""
    args = parse_args()
    from effdet_plugin import data_check

    report = data_check.check_dataset(
        data_check.CheckSettings(
            args.data, args.config, args.images, args.image_size, args.cfg_options
        )
    )
    print(report.page())
    written = data_check.write_report(report, args.out)
    print(f'\n{written[0]} and {len(written) - 1} images beside it')
    if args.json:
        data_check.write_json(report, args.json)
    if args.fix:
        counts = data_check.write_clean_copy(report, args.fix)
        print(f'{args.fix}: ' + ', '.join(f'{count} {what}' for what, count in counts.items()))
    return int(report.has_errors or (args.strict and report.has_faults))


if __name__ == '__main__':
    run(main)
