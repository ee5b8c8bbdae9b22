"""Write a checkpoint for a runtime, check the file against PyTorch, and keep it if it is right."""

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from mmdet.registry import MODELS

import effdet_plugin
from effdet_plugin.config import parse_size, resize_mode_of
from effdet_plugin.config.embedded import embed
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export import check, tensorrt, tflite
from effdet_plugin.export.calibration import COUNT, calibration_images
from effdet_plugin.export.extras import check_installed
from effdet_plugin.export.images import Preparation, images_of, letterbox_of
from effdet_plugin.export.metadata import ENDS, INPUTS, Metadata
from effdet_plugin.export.nms_operator import suppress_by_operator
from effdet_plugin.export.pixels import FromPixels
from effdet_plugin.export.program import (
    Form,
    Program,
    check_exportable,
    detector_program,
    without_in_place,
)
from effdet_plugin.export.reference import (
    DYNAMIC_SIZE,
    Reference,
    Tell,
    differences,
    images_needed,
)
from effdet_plugin.export.runtime import Runtime
from effdet_plugin.files import replacing
from effdet_plugin.models.fold import fold
from effdet_plugin.trained_model import TrainedModel

FORMATS = {
    'tensorrt': '.onnx',
    'onnx': '.onnx',
    'openvino': '.xml',
    'pt2': '.pt2',
    'tflite': '.tflite',
}
# TensorRT's engine builder chooses the precision itself, on the GPU that the engine is for.
PRECISIONS_OF = {
    'onnx': ('fp32', 'fp16', 'int8'),
    'openvino': ('fp32', 'fp16', 'int8'),
    'pt2': ('fp32', 'fp16'),
    'tensorrt': ('fp32',),
    'tflite': ('fp32', 'fp16', 'dynamic', 'int8'),
}
COMPANIONS = {'openvino': '.bin'}
METHODS = {'hard': 'hard', 'soft': 'gaussian'}


@dataclass(frozen=True)
class Options:
    """What is written.

    Attributes:
        format: ``'onnx'``, ``'openvino'``, ``'pt2'`` or ``'tflite'``.
        end: Last step inside the file; see `effdet_plugin.export.metadata.OUTPUTS`.
        nms: ``'hard'`` or ``'soft'``; None: the config's.
        score_thr: Score threshold; None: the config's.
        iou_thr: IoU threshold of hard NMS; None: the config's.
        max_per_img: Rows of the output; None: the config's.
        dynamic: Any size whose sides are multiples of 128.
        precision: Of the network; see `effdet_plugin.export.metadata.Metadata`.
        input: ``'float'`` or ``'uint8'``; likewise.
        calib: Folder of images, to calibrate ``'int8'`` with and to check the file; None: the
            config's training data, and its test data.
        calib_count: Number of these images, at most.
    """

    format: str = 'onnx'
    end: str = 'postprocess'
    nms: str | None = None
    score_thr: float | None = None
    iou_thr: float | None = None
    max_per_img: int | None = None
    dynamic: bool = False
    precision: str = 'fp32'
    input: str = 'float'
    calib: Path | None = None
    calib_count: int = COUNT

    def check(self) -> None:
        """Check choices and their combinations.

        Raises:
            ConfigError: Names the option.
        """
        choices: dict[str, Any] = {'format': FORMATS, 'end': ENDS}
        choices |= {'nms': (None, *METHODS), 'input': INPUTS}
        choices['precision'] = PRECISIONS_OF[self.format] if self.format in FORMATS else ()
        for name, known in choices.items():
            if getattr(self, name) not in known:
                names = ', '.join(str(x) for x in known if x)
                place = f' of {self.format}' if name == 'precision' else ''
                raise ConfigError(f'--{name} {getattr(self, name)}: choose one{place} of {names}')
        for name in ('score_thr', 'iou_thr'):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ConfigError(f'--{name.replace("_", "-")} {value}: give a number in 0..1')
        if self.max_per_img is not None and self.max_per_img < 1:
            raise ConfigError(f'--max-per-img {self.max_per_img}: give 1 or more')
        if self.input == 'uint8' and (self.dynamic or self.format in ('tensorrt', 'tflite')):
            other = '--dynamic-size' if self.dynamic else f'--format {self.format}'
            raise ConfigError(f'--input uint8: not with {other}; leave one of them out')
        if self.dynamic and self.end != 'raw':
            raise ConfigError('--dynamic-size: anchors and NMS need a size; add --end raw')
        if self.format == 'tflite':
            self._check_tflite()

    def _check_tflite(self) -> None:
        if self.dynamic:
            raise ConfigError('--dynamic-size: a .tflite has one size; choose it by --image-size')
        if self.end == 'decoded':
            raise ConfigError('--end decoded: runtimes of .tflite take postprocess or raw')
        if self.end == 'postprocess' and self.nms == 'soft':
            raise ConfigError(
                '--nms soft: the detection operator of TensorFlow Lite has hard NMS only'
            )


@dataclass
class Exported:
    """What was written.

    Attributes:
        path: The file.
        metadata: Inside it.
        differences: From PyTorch, by what was checked.
    """

    path: Path
    metadata: Metadata
    differences: dict[str, check.Difference] = field(default_factory=dict)


def export(
    trained: TrainedModel, out: Path | str, options: Options, tell: Tell = lambda _: None
) -> Exported:
    """Write a trained network for a runtime, after a check against PyTorch.

    Args:
        trained: From `effdet_plugin.trained_model.load_trained`, on the CPU.
        out: File to write; its suffix is that of the format.
        options: What to write.
        tell: Gets a line for each step.

    Raises:
        ConfigError: Options or network that cannot be exported.
        CheckpointError: The file differs from PyTorch by more than its bounds; nothing is left.
        InstallError: A package of the format is missing.
    """
    options.check()
    check_installed(options.format, options.precision)
    out = Path(out)
    if out.suffix != FORMATS[options.format]:
        raise ConfigError(
            f'--out {out}: a file of {options.format} ends in {FORMATS[options.format]}'
        )
    trained = with_nms(trained, options)
    metadata = metadata_of(trained, options)
    images = images_of(trained.config, options.calib, images_needed(metadata), 'test', tell)
    runner = import_module(f'effdet_plugin.export.{options.format}')
    tell('folding and exporting the network')
    # The check needs a form that runs here: TensorRT's plugin does not.
    checked = tensorrt.checked_form(metadata) if options.format == 'tensorrt' else metadata
    built = _built(runner, trained, checked, options)
    reference = Reference(trained, checked, images)
    exported = Exported(out, metadata)
    with replacing(out) as part, _companion(part, out, options.format):

        def load(min_score: float) -> Runtime:
            if checked.end == 'postprocess':
                runner.set_min_score(built, min_score)
            runner.save(built, metadata, part)
            loaded: Runtime = runner.load(part)
            return loaded

        for name, difference in differences(load, reference, tell):
            exported.differences[name] = difference
            if over := check.failures(difference, checked):
                raise CheckpointError(f'{out}: not written: differs from PyTorch ({name}): {over}')
    if options.format == 'tflite':
        for line in tflite.remarks(built, metadata, out):
            tell(line)
    return exported


def _built(runner: ModuleType, trained: TrainedModel, metadata: Metadata, options: Options) -> Any:
    """Return the network in a runtime's form."""
    size = metadata.image_size or DYNAMIC_SIZE
    images = None
    if metadata.precision == 'int8':
        prepare = Preparation(trained.model, size, metadata.resize_dtype, metadata.resize_mode)
        images = calibration_images(trained.config, prepare, options.calib, options.calib_count)
    if metadata.format == 'tflite':  # its converter takes the module itself
        check_exportable(trained.model)
        return runner.build(fold(trained.model, size), metadata, images)
    program = program_of(trained, metadata)
    if images is None:
        return runner.build(program)
    source = images.pixels if metadata.input == 'uint8' else images.__iter__
    return runner.build_int8(program, lambda: (image[None] for image in source()))


@contextmanager
def _companion(part: Path, out: Path, form: str) -> Iterator[None]:
    """Move a format's second file into place before the first; remove it if anything fails."""
    suffix = COMPANIONS.get(form)
    second = part.with_suffix(suffix) if suffix else None
    try:
        yield
        if second is not None and suffix is not None:
            with replacing(out.with_suffix(suffix)) as place:
                os.replace(second, place)
    finally:
        if second is not None:
            second.unlink(missing_ok=True)


def with_nms(trained: TrainedModel, options: Options) -> TrainedModel:
    """Return the network with the options of its post-processing changed."""
    changed: dict[str, Any] = {
        name: getattr(options, name) for name in ('score_thr', 'iou_thr', 'max_per_img')
    }
    changed['method'] = METHODS[options.nms] if options.nms else None
    changed = {name: value for name, value in changed.items() if value is not None}
    if options.format == 'tflite' and options.end == 'postprocess':
        own = (trained.config.model.bbox_head.get('postprocessor') or {}).get('score_thr')
        changed = {'score_thr': own or tflite.SCORE_THR, **changed, **tflite.NMS}
    if not changed:
        return trained
    config, model = copy.deepcopy(trained.config), copy.copy(trained.model)
    head = config.model.bbox_head
    node = head.get('postprocessor') or {'type': 'DetectionPostProcessor'}
    head.postprocessor = {**node, **changed}
    model._modules = dict(model._modules)
    model.bbox_head = copy.copy(model.bbox_head)
    model.bbox_head._modules = dict(model.bbox_head._modules)
    model.bbox_head.postprocessor = MODELS.build(dict(head.postprocessor))
    return replace(trained, config=config, model=model)


def metadata_of(trained: TrainedModel, options: Options) -> Metadata:
    """Return what the file will say about itself."""
    letterbox = letterbox_of(trained.config)
    size = letterbox.get('image_size') or _size_of(trained.config)
    preprocessor = trained.model.data_preprocessor
    node = dict(trained.config.model.bbox_head.get('postprocessor') or {})
    node.pop('type', None)
    return Metadata(
        format=options.format,
        classes=trained.classes,
        image_size=None if options.dynamic else (int(size[0]), int(size[1])),
        mean=tuple(float(x) for x in preprocessor.mean.flatten()),
        std=tuple(float(x) for x in preprocessor.std.flatten()),
        pad_value=float(preprocessor.pad_value),
        resize_mode=resize_mode_of(trained.config.test_dataloader.dataset) or 'letterbox',
        resize_dtype=letterbox.get('resize_dtype', 'uint8'),
        end=options.end,
        nms=node,
        input=options.input,
        precision=options.precision,
        version=effdet_plugin.__version__,
        checkpoint_sha256=trained.checkpoint_hash or '',
        config=embed(trained.config),
    )


def _size_of(config: Mapping[str, Any]) -> tuple[int, int]:
    from effdet_plugin.config import find_sizes

    for _, size in find_sizes(config['test_dataloader']):
        if size is not None:
            return parse_size(size)
    raise ConfigError('test_dataloader.dataset: no image_size; give one by --image-size')


def program_of(trained: TrainedModel, metadata: Metadata) -> Program:
    """Fold and export the network in the form of a file."""
    size = metadata.image_size
    folded = fold(trained.model, size or DYNAMIC_SIZE)
    if metadata.format != 'pt2':
        without_in_place(folded)
    form = Form(
        torch.float16 if metadata.precision == 'fp16' else torch.float32,
        FromPixels(metadata) if metadata.input == 'uint8' else None,
        suppress_by_operator if metadata.format in ('onnx', 'openvino') else None,
    )
    return detector_program(folded, size, metadata.end, form)
