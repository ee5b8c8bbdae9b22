"""Test-time augmentation: the views of a picture that a config is tested on, and a detector."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose

from effdet_plugin.config import find_sizes, set_image_size
from effdet_plugin.errors import ConfigError
from effdet_plugin.inference.detector import Detector, Picture, test_pipeline
from effdet_plugin.inference.images import read_image
from effdet_plugin.models.detectors.merged_views import check_merge, merge_instances, unflip

STEP = 64  # sizes of scaled views are multiples: half of the coarsest stride
_FLIP_METAS = ('flip', 'flip_direction')
Step = dict[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class TTA:
    """Views of a picture, and how their detections are merged.

    Attributes:
        scales: Of the config's own input size; that size itself is always the first view.
        flip: Also left to right, at each scale.
        merge: ``'nms'`` or ``'wbf'``, see `effdet_plugin.models.detectors.MergedViews`.

    Raises:
        ConfigError: Unknown ``merge``, or a scale that is not positive.
    """

    scales: Sequence[float] = (0.8, 1.25)
    flip: bool = True
    merge: str = 'nms'

    def __post_init__(self) -> None:
        """Check the values."""
        check_merge(self.merge)
        if any(scale <= 0 for scale in self.scales):
            raise ConfigError(f'TTA: the scales {tuple(self.scales)} must be positive')

    def all_scales(self) -> list[float]:
        """Return the scales of the views, the config's own first."""
        return [1.0, *(scale for scale in self.scales if scale != 1)]

    def flips(self) -> list[bool]:
        """Whether the views of one scale are flipped, the plain one first."""
        return [False, True] if self.flip else [False]


class TTADetector(Detector):
    """`Detector` that looks at each picture several times.

    Args:
        config: See `Detector`.
        checkpoint: See `Detector`.
        tta: Which views.
        score_thr: Merged detections that score less are left out.
        **kwargs: See `Detector`.
    """

    def __init__(
        self, config: Any, checkpoint: Any, tta: TTA, score_thr: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(config, checkpoint, **kwargs)  # single views keep all that they find
        self.tta = tta
        self.merged_score_thr = score_thr
        self._sizes = [test_pipeline(scaled(self.config, scale)) for scale in tta.all_scales()]

    def _predict(self, batch: Sequence[Picture]) -> Iterator[DetDataSample]:
        """Yield the merged samples of one batch."""
        pictures = [p if isinstance(p, np.ndarray) else read_image(p) for p in batch]
        views = [
            self._look(pictures, prepare, flip)
            for flip in self.tta.flips()
            for prepare in self._sizes
        ]
        for samples in zip(*views, strict=True):
            found = merge_instances([view.pred_instances for view in samples], self.tta.merge)
            samples[0].pred_instances = found[found.scores >= self.merged_score_thr]
            yield samples[0]

    def _look(
        self, pictures: Sequence[np.ndarray[Any, Any]], prepare: Compose, flip: bool
    ) -> list[DetDataSample]:
        """Return the samples of one view, boxes in the frame of the pictures as they are."""
        self._prepare = prepare
        seen = [np.ascontiguousarray(p[:, ::-1]) for p in pictures] if flip else pictures
        samples = list(super()._predict(seen))
        for sample in samples:
            meta = {**sample.metainfo, 'flip': flip, 'flip_direction': 'horizontal'}
            sample.pred_instances = unflip(sample.pred_instances, meta)
        return samples


def apply_tta(cfg: Config, tta: TTA) -> dict[str, Any]:
    """Let a config's test data set give several views of each picture.

    Args:
        cfg: Changed in place: the pipelines of ``test_dataloader``. A ``tta_pipeline`` of its own,
            as some of mmdet's configs have, goes before ``tta``'s views.
        tta: Which views, and how they are merged.

    Returns:
        The config of the model that takes them, without its ``module``: for mmengine's
        ``PrepareTTAHook``.

    Raises:
        ConfigError: The pipeline has no step that sets a size.
    """
    variants = [scaled(cfg, scale).test_dataloader.dataset for scale in tta.all_scales()]
    sized = [[_with_size(*item) for item in _pipeline_nodes(dataset)] for dataset in variants]
    for number, (node, _) in enumerate(_pipeline_nodes(cfg.test_dataloader.dataset)):
        pipelines = [one[number] for one in sized]
        node.pipeline = cfg.get('tta_pipeline') or views_pipeline(pipelines, tta)
    return {'type': 'MergedViews', 'merge': tta.merge}


def scaled(cfg: Config, scale: float) -> Config:
    """Return a copy of a config at another input size.

    Args:
        cfg: With ``image_size``, or a test pipeline of mmdet's with a ``Resize``.
        scale: Of the size; 1 leaves it as it is, others give multiples of `STEP`.

    Raises:
        ConfigError: Nothing in it sets a size.
    """
    cfg = copy.deepcopy(cfg)
    sizes = [size for _, size in find_sizes(cfg.test_dataloader, 'test_dataloader')]
    if sizes:
        set_image_size(cfg, scaled_size(sizes[0], scale))
        return cfg
    for node, _ in _pipeline_nodes(cfg.test_dataloader.dataset):
        resize = node.pipeline[_sizing_step(node.pipeline)]
        resize.scale = scaled_size(tuple(resize.scale), scale)
    return cfg


def scaled_size(size: Size, scale: float) -> Size:
    """Return a size of about ``scale`` times the sides, in pixels."""
    if scale == 1:
        return size[0], size[1]
    height, width = (max(STEP, round(side * scale / STEP) * STEP) for side in size)
    return height, width


def views_pipeline(pipelines: Sequence[Sequence[Step]], tta: TTA) -> list[Step]:
    """Return a test pipeline whose pictures come in several views.

    The flip is before the step that sets the size, so that padding stays at the right and bottom.

    Args:
        pipelines: The test pipeline at each size.
        tta: Which views.
    """
    index = _sizing_step(pipelines[0])
    flips = [dict(type='RandomFlip', prob=float(flip)) for flip in tta.flips()]
    sizes = [pipeline[index] for pipeline in pipelines]
    rest = [[_with_flip_metas(step)] for step in pipelines[0][index + 1 :]]
    return [*pipelines[0][:index], dict(type='TestTimeAug', transforms=[flips, sizes, *rest])]


def _sizing_step(pipeline: Sequence[Step]) -> int:
    for index, step in enumerate(pipeline):
        if step['type'] in ('LetterBox', 'Resize'):
            return index
    raise ConfigError(
        'test_dataloader: the pipeline has no LetterBox or Resize, whose size could be scaled; '
        'give the config a tta_pipeline'
    )


def _pipeline_nodes(node: Any, size: Size | None = None) -> Iterator[tuple[Any, Size | None]]:
    """Yield the data sets below a node that have a pipeline, and the size that they are given."""
    size = node.get('image_size', size)
    for inner in [node.get('dataset'), *(node.get('datasets') or [])]:
        if inner:
            yield from _pipeline_nodes(inner, size)
    if node.get('pipeline'):
        yield node, size


def _with_size(node: Any, size: Size | None) -> list[Step]:
    """Return a data set's pipeline with the size in the step, which `TestTimeAug` hides from it."""
    steps = [dict(step) for step in node.pipeline]
    step = steps[_sizing_step(steps)]
    if step['type'] == 'LetterBox' and size is not None:
        step['image_size'] = size
    return steps


def _with_flip_metas(step: Step) -> Step:
    if step['type'] != 'PackDetInputs' or 'meta_keys' not in step:
        return step
    return {**step, 'meta_keys': tuple({*step['meta_keys'], *_FLIP_METAS})}
