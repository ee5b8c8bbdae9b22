"""Train a detector: of your own images, or a config as mmdet's tools/train.py does.

%(prog)s --data DIR                                    # Lite0, from COCO weights
%(prog)s --data DIR --model d0 --epochs 30 --batch-size 4
%(prog)s --data DIR --time 30m --name trial            # as many epochs as fit
%(prog)s custom_coco --data DIR --dry-run              # check first
%(prog)s lite0_mediapipe --data DIR --export tflite    # and files for phones
%(prog)s d0_coco --amp --image-size 640 --resume

DIR has images with labels of COCO, Pascal VOC, YOLO or csv. Checkpoints and logs go to
work_dirs/NAME. The last line of --dry-run is JSON.
"""

import json
import os
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path

from effdet_plugin.cli.model_words import check_is_there
from effdet_plugin.cli.options import add_config_options, add_launcher
from effdet_plugin.errors import ConfigError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add(
        'config',
        nargs='?',
        metavar='CONFIG',
        help='config file or the name of one such as d0_coco; may be left out with --data',
    )
    add('--data', type=Path, help='own data: folder or annotation file')
    _add_plain(parser)
    add('--work-dir', type=Path, help='folder for checkpoints and logs')
    add(
        '--amp',
        action=BooleanOptionalAction,
        help='mixed precision (default: for own data on CPUs that are faster in bfloat16)',
    )
    add('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    add(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='resume from CKPT, or from the latest checkpoint in the work dir',
    )
    add('--overwrite', action='store_true', help='overwrite an existing run in the work dir')
    add('--dry-run', action='store_true', help='check data and config with one step; write nothing')
    add('--seed', type=int, help='random seed')
    add(
        '--export',
        choices=('onnx', 'openvino', 'pt2', 'tflite'),
        help='then export the best checkpoint (tflite: fp32 and int8) and evaluate the files',
    )
    add(
        '--log',
        nargs='+',
        default=[],
        choices=('tensorboard', 'wandb', 'mlflow', 'none'),
        help='show losses, AP and images there (default: TensorBoard, where it is installed)',
    )
    add(
        '--cache',
        metavar='ram[:GB]|DIR[:GB]',
        help='keep decoded images for the next epochs, in memory (an eighth of it) or a folder '
        '(10 GB); no image changes',
    )
    add_config_options(parser)
    add_launcher(parser)


def _add_plain(parser: ArgumentParser) -> None:
    """Add the options that most people change."""
    add = parser.add_argument_group('what most people change').add_argument
    add('--model', help='network: lite0 ... lite4, d0 ... d7x (default: lite0), or a config')
    add('--epochs', type=int, metavar='N', help='number of epochs')
    add(
        '--batch-size',
        type=number_or_auto,
        metavar='N|auto',
        help='training images per step (and GPU); auto: as many as the memory of a GPU takes',
    )
    add('--lr', type=float, metavar='RATE', help='learning rate after the warm-up')
    add(
        '--freeze',
        nargs='+',
        metavar='PART',
        help='parts that are not trained: backbone, neck, or the first letters of parameter names',
    )
    add(
        '--weights',
        metavar='START',
        help='what the training starts from: coco, imagenet, none, or a checkpoint (default with '
        '--data: coco where it can be had, else imagenet)',
    )
    add('--device', help='device: cpu, cuda, cuda:1 (default: the fastest available)')
    add('--name', help='name of the run: it is written to work_dirs/NAME')
    add(
        '--time',
        metavar='30m',
        help='time for the whole training (90s, 30m, 2h): the number of epochs is lowered to fit',
    )


def number_or_auto(text: str) -> int | str:
    """Return a whole number, or the word ``auto``.

    Raises:
        ValueError: It is neither; argparse says so.
    """
    return text if text == 'auto' else int(text)


def run(args: Namespace) -> None:
    """Train, or do a dry run."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    kind = choose_device(args.device)
    check_is_there(args.data)
    from effdet_plugin.training import (
        check_device,
        check_export,
        dry_run,
        export_trained,
        plain_settings,
        train,
    )

    if kind is not None:
        check_device(kind)
    arguments = vars(args)
    for name in ('local_rank', 'device'):
        arguments.pop(name)
    is_dry_run = arguments.pop('dry_run')
    form = arguments.pop('export')
    settings = plain_settings(**arguments)
    if form:
        check_export(settings, form)
    if is_dry_run:
        print(json.dumps(dry_run(settings), ensure_ascii=False))
        return
    cfg = train(settings)
    if form:
        for line in export_trained(settings, cfg, form):
            print(line)


def choose_device(device: str | None) -> str | None:
    """Hide the GPUs that are not meant, before torch looks for them; return the device's kind.

    Raises:
        ConfigError: There is no such kind of device.
    """
    kind, _, index = (device or '').partition(':')
    if kind not in ('', 'cpu', 'cuda', 'mps') or (index and not index.isdecimal()):
        raise ConfigError(f'--device {device}: give cpu, cuda, cuda:N or mps')
    if kind == 'cpu' or (kind == 'cuda' and index):
        os.environ['CUDA_VISIBLE_DEVICES'] = index if kind == 'cuda' else ''
    return kind or None
