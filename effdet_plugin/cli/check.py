"""Check a dataset: every image and box, class names, splits, and the anchors of a config.

    %(prog)s DIR                      # what 'train --data' takes
    %(prog)s instances.json --images DIR --json report.json
    %(prog)s d0_coco
    %(prog)s DIR --fix CLEANED        # a copy; the original is not changed

Exit code: 0; 1 if a training would not start (with --strict, for any fault); 2 for wrong arguments.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from effdet_plugin.cli.options import add_config_options
from effdet_plugin.shipped_configs import config_path


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add('data', type=Path, help='folder, annotation file, or config that names its data')
    add(
        '--config',
        type=Path,
        default='custom_coco',
        help='config whose anchors are compared with the boxes (default: %(default)s)',
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


def run(args: Namespace) -> int:
    """Check, print the page and write what was asked for."""
    from effdet_plugin import data_check

    report = data_check.check_dataset(
        data_check.CheckSettings(
            args.data if args.data.exists() else config_path(args.data),
            config_path(args.config),
            args.images,
            args.image_size,
            args.cfg_options,
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
