#!/usr/bin/env python3
"""AP of a checkpoint under each switch of inference, one at a time, as a Markdown table.

benchmarks/switches.py CONFIG CHECKPOINT [--data DIR]

The figures of docs/differences.md. Every row is a whole evaluation, so take a small test set.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from _bootstrap import run

HEAD = 'model.bbox_head'
POST = f'{HEAD}.postprocessor'
LETTER_BOX = 'test_dataloader.dataset.pipeline.2'
# What the row says, and what it changes in the config.
ROWS: dict[str, dict[str, object]] = {
    "the configs' defaults": {},
    'resize uint8, not floats (`resize_dtype`)': {f'{LETTER_BOX}.resize_dtype': 'uint8'},
    '1000 candidates a level (`candidates_per_level`)': {f'{POST}.candidates_per_level': 1000},
    'best class of each anchor (`nms_pre=0`)': {f'{POST}.nms_pre': 0},
    'hard NMS, IoU 0.5 (`method`)': {f'{POST}.method': 'hard'},
    'class-agnostic NMS (`class_wise`)': {f'{POST}.class_wise': False},
    'clip before NMS (`clip`)': {f'{POST}.clip': 'before'},
    'clip after NMS (`clip`)': {f'{POST}.clip': 'after'},
    'whole strides (`stride_mode`)': {f'{HEAD}.anchor_generator.stride_mode': 'power_of_two'},
    'aspects 1.4, 0.7 (`aspect_ratios`)': {
        f'{HEAD}.anchor_generator.aspect_ratios': [1.0, (1.4, 0.7), (0.7, 1.4)]
    },
    'padding of -1 after scaling (`pad_value`)': {'model.data_preprocessor.pad_value': -1.0},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint')
    parser.add_argument('--data', type=Path, help='own data, as in tools/test.py')
    arguments = parser.parse_args()
    from effdet_plugin.training import TestSettings, evaluate

    print('| switch | AP | AP50 | AP75 |\n|---|---|---|---|', flush=True)
    for name, options in ROWS.items():
        found = evaluate(TestSettings(**vars(arguments), cfg_options=options))
        values = (found[f'coco/bbox_{key}'] for key in ('mAP', 'mAP_50', 'mAP_75'))
        print(f'| {name} | ' + ' | '.join(f'{value:.4f}' for value in values) + ' |', flush=True)


if __name__ == '__main__':
    run(main)
