"""An exported file as a network: batches in, data samples out, as with mmdet's detectors."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from effdet_plugin.config import (
    Options,
    find_sizes,
    load,
    parse_options,
    parse_size,
    resize_mode_of,
    set_image_size,
    set_resize_mode,
)
from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.config.embedded import damage_is_told, embedded_config
from effdet_plugin.datasets.transforms import SizedTransform, fit_scale
from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export.metadata import SIZE_STEP, Metadata
from effdet_plugin.export.runtime import Runtime, load_runtime
from effdet_plugin.models.postprocessor import DetectionPostProcessor, Detections, whole
from effdet_plugin.ops.boxes import gather_rows
from effdet_plugin.ops.nms import NEG_INF
from effdet_plugin.trained_model import TrainedModel, changed

NMS = {'hard': 'hard', 'soft': 'gaussian'}  # our words -> the post-processor's
_SIZE_STEPS = ('Resize', 'Pad')  # mmdet's; ours are `SizedTransform`


class RuntimeModel(BaseModel):
    """Runs a file in the place of a network: ``test_step`` of a batch gives its data samples.

    Args:
        runtime: The loaded file.
        head: Config of the head whose anchors and box coder belong to ``raw`` outputs.
        preprocessor: Config of the data preprocessor; its numbers are replaced by the file's.
        nms: Arguments of the `DetectionPostProcessor` after ``raw`` and ``decoded`` outputs.
    """

    def __init__(
        self,
        runtime: Runtime,
        head: Mapping[str, Any],
        preprocessor: Mapping[str, Any],
        nms: Mapping[str, Any],
    ) -> None:
        known = runtime.metadata
        self.metadata, self._is_raw_input = known, known.input == 'uint8'
        numbers = {'mean': known.mean, 'std': known.std, 'pad_value': known.pad_value}
        super().__init__(
            BaseDataPreprocessor()
            if self._is_raw_input
            else MODELS.build({**preprocessor, **numbers})
        )
        self.runtime = runtime
        self._generator = TASK_UTILS.build(
            head.get('anchor_generator') or {'type': 'EfficientDetAnchorGenerator'}
        )
        self._coder = TASK_UTILS.build(head.get('bbox_coder') or {'type': 'EfficientDetBoxCoder'})
        kind = _OfScores if known.end == 'decoded' else DetectionPostProcessor
        self._post = kind(**nms)

    def forward(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: list[DetDataSample] | None = None,
        mode: str = 'predict',
    ) -> list[DetDataSample]:
        """Detect; see mmengine.

        Args:
            inputs: ``(B, 3, H, W)`` normalised; for a file of uint8 input a list of ``(3, h, w)``
                RGB images as they are.
            data_samples: Of these images, with their metainfo.
            mode: Only ``'predict'``.

        Returns:
            The samples with ``pred_instances`` in pixels of the original images.

        Raises:
            ConfigError: Another mode, or no samples.
        """
        if mode != 'predict' or data_samples is None:
            raise ConfigError(f'an exported file only predicts, mode={mode!r} is not possible')
        if self._is_raw_input:
            found = self._each_shape([np.asarray(one.cpu().numpy()) for one in inputs])
            scales = [self._scale(sample.ori_shape) for sample in data_samples]
        else:
            assert isinstance(inputs, Tensor)
            found = self._run(np.ascontiguousarray(inputs.cpu().numpy()))
            scales = [sample.metainfo.get('scale_factor', (1.0, 1.0)) for sample in data_samples]
        for sample, instances, scale in zip(data_samples, found, scales, strict=True):
            instances.bboxes = instances.bboxes / instances.bboxes.new_tensor(scale).repeat(2)
            sample.pred_instances = instances
        return data_samples

    def _each_shape(self, images: Sequence[np.ndarray[Any, Any]]) -> list[InstanceData]:
        """Run images ``(3, h, w)``, those of one size together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            groups.setdefault(image.shape, []).append(number)
        found: dict[int, InstanceData] = {}
        for numbers in groups.values():
            batch = np.stack([images[number].transpose(1, 2, 0) for number in numbers])
            found |= dict(zip(numbers, self._run(np.ascontiguousarray(batch)), strict=True))
        return [found[number] for number in range(len(images))]

    def _run(self, images: np.ndarray[Any, Any]) -> list[InstanceData]:
        """Return the detections of a batch, in pixels of the network input."""
        # A copy: some runtimes give views of memory that the next call overwrites.
        arrays = {name: torch.tensor(array) for name, array in self.runtime(images).items()}
        if self.metadata.end == 'postprocess':
            found = Detections(*(arrays[name] for name in self.metadata.outputs))
        else:
            found = self._after(arrays, self.metadata.image_size or tuple(images.shape[-2:]))
        return [
            InstanceData(
                bboxes=found.boxes[row, :count].float(),
                scores=found.scores[row, :count].float(),
                labels=found.labels[row, :count].long(),
            )
            for row, count in enumerate(found.num.tolist())
        ]

    def _after(self, arrays: Mapping[str, Tensor], size: tuple[int, ...]) -> Detections:
        """Post-process ``raw`` or ``decoded`` outputs."""
        height, width = size
        strides = self._generator.strides
        maps = [(-(-height // y), -(-width // x)) for x, y in strides]
        is_ours = hasattr(self._generator, 'stride_mode')
        keywords = {'image_size': (height, width)} if is_ours else {}
        levels = self._generator.grid_priors(maps, device='cpu', **keywords)
        anchors = torch.cat(levels)
        first, second = (arrays[name] for name in self.metadata.outputs)
        if first.shape[1] != len(anchors):
            raise CheckpointError(
                f'the file gives {first.shape[1]} boxes for an image of {width}x{height}, its '
                f'config has {len(anchors)} anchors: export it again'
            )
        level_sizes = [len(level) for level in levels]
        if self.metadata.end == 'raw':
            decode = self._coder.decode
            found = self._post(first, second, anchors, (height, width), level_sizes, decode)
        else:
            found = self._post(
                second, first, anchors, (height, width), level_sizes, lambda _, boxes: boxes
            )
        detections: Detections = found
        return detections

    def _scale(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Factors (horizontal, vertical) by which the file resizes an image (height, width)."""
        size = self.metadata.image_size
        if size is None:
            raise CheckpointError('the file takes raw images but names no size: export it again')
        if self.metadata.resize_mode == 'letterbox':
            scale = float(fit_scale(shape[:2], size))
            return scale, scale
        return size[1] / shape[1], size[0] / shape[0]


class _OfScores(DetectionPostProcessor):
    """The post-processing of outputs that are scores already, not logits."""

    def select(
        self,
        levels: Sequence[Tensor],
        level_sizes: Sequence[int] | None = None,
        min_logit: float = NEG_INF,
        number: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Select by score; see the base class."""
        _, index, labels = super().select(levels, level_sizes, number=number)
        return gather_rows(whole(levels), index).gather(2, labels[..., None])[..., 0], index, labels


def load_file(
    path: Path,
    config: Config | Path | str | None = None,
    device: str | torch.device | None = None,
    *,
    threads: int | None = None,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
    nms: str | None = None,
    max_per_img: int | None = None,
) -> TrainedModel:
    """Load an exported file as a network.

    Args:
        path: See `effdet_plugin.export.load_runtime`.
        config: Its test pipeline replaces that of the file's own config.
        device: ``'cpu'`` or ``'cuda'``; None: the CPU.
        threads: Number of threads; None: the runtime's default.
        image_size: Only a file of any size follows it.
        options: See `effdet_plugin.config.merge_options`; none of the network's.
        nms: ``'hard'`` or ``'soft'``; only a file without NMS follows it.
        max_per_img: Of an image; a file with NMS gives at most as many as it was exported with.

    Raises:
        CheckpointError: The file is damaged, of another program, or renamed.
        ConfigError: An option that the file cannot follow.
        InstallError: The runtime is not installed.
    """
    runtime = load_runtime(path, None if device is None else str(device), threads)
    known = runtime.metadata
    given = config if config is None or isinstance(config, Config) else load(config)
    cfg = embedded_config(known.as_checkpoint(), str(path)) if given is None else given
    cfg = _with_size(copy.deepcopy(cfg), known, path, image_size)
    _follow_resize_mode(cfg, known)
    if options:
        refuse_network_options(path, options)
        cfg = changed(cfg, None, options)
    if known.input == 'uint8':
        _check_resize_mode(cfg, known, path)
        _leave_size_out(cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    network = cfg.get('model') or {}
    with damage_is_told(str(path)):
        model = RuntimeModel(
            runtime,
            network.get('bbox_head') or {},
            network.get('data_preprocessor') or {'type': 'EfficientDetDataPreprocessor'},
            _nms_of(known, path, nms, max_per_img),
        )
    return TrainedModel(config=cfg, model=model.eval(), classes=known.classes, checkpoint=path)


def refuse_network_options(path: Path | str, options: Options | None) -> None:
    """Refuse options of a network that is in a file.

    Raises:
        ConfigError: Names the option.
    """
    for key in parse_options(options or {}):
        if key.split('.')[0] == 'model':
            raise ConfigError(f'{path}: the network is in the file, {key} cannot be changed')


def _with_size(
    cfg: Config, known: Metadata, path: Path, wanted: str | int | tuple[int, int] | None
) -> Config:
    """Set a file's input size, or one that is wanted, in a config."""
    size = None if wanted is None else parse_size(wanted)
    if known.image_size is None:
        if size is not None and any(side % SIZE_STEP for side in size):
            raise ConfigError(f'{path}: the sides of its input are multiples of {SIZE_STEP}')
    elif size is not None and size != tuple(known.image_size):
        height, width = known.image_size
        raise ConfigError(
            f'{path}: its input is {width}x{height}, not {size[1]}x{size[0]}: leave the size out, '
            'or export the checkpoint with another'
        )
    size = known.image_size or size
    if size is not None and next(find_sizes(cfg), None):
        set_image_size(cfg, size)
    return cfg


def _follow_resize_mode(cfg: Config, known: Metadata) -> None:
    """Resize as the file wants it, whatever the config says; options may still change it."""
    own = resize_mode_of(cfg.test_dataloader.dataset)
    if own is not None and own != known.resize_mode:
        set_resize_mode(cfg, known.resize_mode)


def _check_resize_mode(cfg: Config, known: Metadata, path: Path) -> None:
    """Refuse another way of resizing than the one inside a file.

    Raises:
        ConfigError: Names both.
    """
    wanted = resize_mode_of(cfg.test_dataloader.dataset)
    if wanted not in (None, known.resize_mode):
        raise ConfigError(
            f'{path}: images are resized inside the file, by {known.resize_mode}, not {wanted}: '
            'export it with --resize, or leave that out'
        )


def _leave_size_out(cfg: Config) -> None:
    """Drop the steps that resize and pad from the test pipelines: the file does it."""
    for node in dataset_nodes(cfg.test_dataloader.dataset):
        if node.get('pipeline'):
            node.pipeline = [step for step in node.pipeline if not _sets_size(step)]


def _sets_size(step: Mapping[str, Any]) -> bool:
    kind = TRANSFORMS.get(step['type']) if isinstance(step['type'], str) else step['type']
    return getattr(kind, '__name__', '') in _SIZE_STEPS or (
        isinstance(kind, type) and issubclass(kind, SizedTransform)
    )


def _nms_of(
    known: Metadata, path: Path, nms: str | None, max_per_img: int | None
) -> dict[str, Any]:
    """Return the arguments of the post-processor after a file."""
    arguments = dict(known.nms)
    own, most = arguments.get('method', 'gaussian'), arguments.get('max_per_img', 100)
    if known.end == 'postprocess':
        if nms is not None and NMS[nms] != own:
            raise ConfigError(
                f'{path}: its NMS ({own}) is in the file: export it with --nms {nms}, or with '
                '--end raw to choose here'
            )
        if max_per_img is not None and max_per_img > most:
            raise ConfigError(
                f'{path}: gives at most {most} objects of an image: export it with more'
            )
        return arguments
    arguments |= {} if nms is None else {'method': NMS[nms]}
    return arguments | ({} if max_per_img is None else {'max_per_img': max_per_img})
