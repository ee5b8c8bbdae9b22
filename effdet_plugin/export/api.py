"""Write a checkpoint for a runtime, check the file against PyTorch, and keep it if it is right."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS

import effdet_plugin
from effdet_plugin.config import parse_size
from effdet_plugin.config.embedded import embed
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export import check
from effdet_plugin.export.metadata import ENDS, Metadata
from effdet_plugin.export.pictures import Preparation, images_of, letterbox_of
from effdet_plugin.export.program import NO_LIMIT, EndToEnd, Program, float_program
from effdet_plugin.export.runtime import Array, Outputs, Runtime
from effdet_plugin.files import replacing
from effdet_plugin.models.fold import fold
from effdet_plugin.trained_model import TrainedModel

FORMATS = {'onnx': '.onnx', 'openvino': '.xml', 'pt2': '.pt2'}
COMPANIONS = {'openvino': '.bin'}
METHODS = {'hard': 'hard', 'soft': 'gaussian'}
_BATCHES = (1, 2)  # of the check
_DYNAMIC_SIZE = (256, 384)  # at which a file of any size is checked

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is written.

    Attributes:
        format: ``'onnx'``, ``'openvino'`` or ``'pt2'``.
        end: Last step inside the file; see `effdet_plugin.export.metadata.OUTPUTS`.
        nms: ``'hard'`` or ``'soft'``; None: the config's.
        score_thr: Score threshold; None: the config's.
        iou_thr: IoU threshold of hard NMS; None: the config's.
        max_per_img: Rows of the output; None: the config's.
        dynamic: Any size whose sides are multiples of 128.
    """

    format: str = 'onnx'
    end: str = 'postprocess'
    nms: str | None = None
    score_thr: float | None = None
    iou_thr: float | None = None
    max_per_img: int | None = None
    dynamic: bool = False

    def check(self) -> None:
        """Check choices and their combinations.

        Raises:
            ConfigError: Names the option.
        """
        choices: dict[str, Any] = {'format': FORMATS, 'end': ENDS}
        choices['nms'] = (None, *METHODS)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                names = ', '.join(str(x) for x in known if x)
                raise ConfigError(f'--{name} {getattr(self, name)}: choose one of {names}')
        for name in ('score_thr', 'iou_thr'):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ConfigError(f'--{name.replace("_", "-")} {value}: give a number in 0..1')
        if self.max_per_img is not None and self.max_per_img < 1:
            raise ConfigError(f'--max-per-img {self.max_per_img}: give 1 or more')
        if self.dynamic and self.end != 'raw':
            raise ConfigError('--dynamic: anchors and NMS need a size; add --end raw')


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
        InstallError: A package of the format is missing; its extra is named.
    """
    options.check()
    out = Path(out)
    if out.suffix != FORMATS[options.format]:
        raise ConfigError(
            f'--out {out}: a file of {options.format} ends in {FORMATS[options.format]}'
        )
    trained = with_nms(trained, options)
    metadata = metadata_of(trained, options)
    images = images_of(trained.config, None, max(_BATCHES), 'test')
    runner = import_module(f'effdet_plugin.export.{options.format}')
    tell('folding and exporting the network')
    program = program_of(trained, metadata)
    built = runner.build(program)
    reference = Reference(trained, metadata, images)
    exported = Exported(out, metadata)
    with replacing(out) as part, _companion(part, out, options.format):

        def load(min_score: float) -> Runtime:
            if metadata.end == 'postprocess':
                runner.set_min_score(built, min_score)
            runner.save(built, metadata, part)
            loaded: Runtime = runner.load(part)
            return loaded

        for name, difference in differences(load, reference, tell):
            exported.differences[name] = difference
            if over := check.failures(difference, metadata):
                raise CheckpointError(f'{out}: not written: differs from PyTorch ({name}): {over}')
    return exported


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


def differences(
    load: Callable[[float], Runtime], reference: 'Reference', tell: Tell
) -> Iterator[tuple[str, check.Difference]]:
    """Compare a file with PyTorch: with rows of padding, then as it will be kept.

    Args:
        load: Writes the file with a least score of candidates and loads it.
        reference: PyTorch's side.
        tell: Gets a line for each comparison.

    Yields:
        What was compared, and how far it differs.
    """
    limits = [NO_LIMIT]
    if reference.metadata.end == 'postprocess':
        limits.insert(0, reference.limit_with_padding())
    for limit in limits:
        runtime = load(limit)
        for batch in _BATCHES:
            name = f'batch {batch}' + (f', candidates > {limit:.3g}' if limit > NO_LIMIT else '')
            difference = reference.compare(runtime, batch, limit)
            tell(f'{name}: {difference.text(reference.metadata.end)}')
            yield name, difference


class Reference:
    """The network in eager PyTorch, not folded, on the images of the check.

    Args:
        trained: The network.
        metadata: Of the file.
        images: RGB pixels.
    """

    def __init__(self, trained: TrainedModel, metadata: Metadata, images: list[Array]) -> None:
        self.metadata = metadata
        self.size = metadata.image_size or _DYNAMIC_SIZE
        prepare = Preparation(trained.model, self.size, metadata.resize_dtype)
        self.inputs = np.stack([prepare(image) for image in images])
        self.module = EndToEnd(trained.model, metadata.image_size, metadata.end).eval()

    @torch.no_grad()
    def run(self, batch: int, min_score: float = NO_LIMIT) -> Outputs:
        """Return PyTorch's arrays of the first images."""
        if self.metadata.end == 'postprocess':
            self.module.min_score.fill_(min_score)
        found = self.module(torch.from_numpy(self.inputs[:batch]))
        return {n: x.numpy() for n, x in zip(self.metadata.outputs, found, strict=True)}

    def limit_with_padding(self) -> float:
        """Return a least score of candidates at which every image leaves rows of padding."""
        found = self.run(len(self.inputs))
        scores = found['scores'][found['labels'] >= 0]
        for limit in check.limits_of(scores):
            if self.run(len(self.inputs), limit)['num'].max() < found['scores'].shape[1]:
                return limit
        return float(scores.max(initial=0.0))  # nothing is left but padding

    def compare(self, runtime: Runtime, batch: int, min_score: float) -> check.Difference:
        """Compare a file with PyTorch on the first images."""
        found = runtime(self.inputs[:batch])
        expected = self.run(batch, min_score)
        return check.compare(expected, found, self.metadata, max(self.size))


def with_nms(trained: TrainedModel, options: Options) -> TrainedModel:
    """Return the network with the options of its post-processing changed."""
    changed: dict[str, Any] = {
        name: getattr(options, name) for name in ('score_thr', 'iou_thr', 'max_per_img')
    }
    changed['method'] = METHODS[options.nms] if options.nms else None
    changed = {name: value for name, value in changed.items() if value is not None}
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
        resize_mode='letterbox',
        resize_dtype=letterbox.get('resize_dtype', 'uint8'),
        end=options.end,
        nms=node,
        input='float',
        precision='fp32',
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
    """Fold and export the network."""
    size = metadata.image_size
    folded = fold(trained.model, size or _DYNAMIC_SIZE)
    return float_program(folded, size, metadata.end)
